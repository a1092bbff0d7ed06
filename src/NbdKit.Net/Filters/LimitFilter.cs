using NbdKit.Filters.Clients;

namespace NbdKit.Filters;

/// <summary>Limits how many clients are served at the same time (nbdkit-limit-filter(1)).</summary>
/// <remarks>
/// <para>
/// A client takes its place when it first opens an export, and keeps it until its connection has ended and all that it opened is
/// closed; nbdkit's has no place between two opens. Further clients are turned away as they connect; one that was let in before
/// the last place was taken cannot open an export.
/// </para>
/// <para>
/// What the host opens itself is not counted, nor are shared contexts: put the filter above those that share them.
/// </para>
/// </remarks>
public sealed class LimitFilter : INbdFilter
{
    private readonly ClientRoll _roll = new();
    private readonly NofilterFilter _uncounted = new();

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "limit",
        "limit how many clients are served at the same time",
        [new NbdParameter("limit", "the number of clients, 0 for any number (default 1)")],
        parameters => new LimitFilter { Limit = parameters.Integer("limit") ?? 1 });

    /// <summary>
    /// How many clients are served at the same time; 0 for any number. 1 by default. May be changed at any time and from any thread;
    /// holds for clients that come afterwards.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public int Limit
    {
        get => Volatile.Read(ref field);
        set
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            Volatile.Write(ref field, value);
        }
    } = 1;

    /// <summary>How many clients have a place now.</summary>
    public int Clients => _roll.Count;

    /// <inheritdoc/>
    public string Name => "limit";

    private int Places => Limit == 0 ? int.MaxValue : Limit;

    /// <inheritdoc/>
    public ValueTask PreconnectAsync(
        NbdBackend next, NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(next);
        return _roll.Count < Places
            ? next.PreconnectAsync(connection, readOnly, cancellationToken)
            : throw new NbdException(NbdError.PermissionDenied, $"only {Limit} clients are served at a time");
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        if (context.Connection is { } client)
        {
            return await ClientHandle.OpenAsync(_roll, client, Places, context, cancellationToken).ConfigureAwait(false);
        }
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return _uncounted;
    }
}
