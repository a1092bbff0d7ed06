using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Opens the layers below once and serves every connection through that one context. Shields plugins whose open is slow, or
/// resets a device, from clients that open an export again and again. Corresponds to nbdkit-openonce-filter(1).
/// </summary>
/// <remarks>
/// <para>
/// There is one context for each export name, read-only flag and state of encryption, so that what is shown to an encrypted
/// client is never shown to another one. The first client opens it, and those that come meanwhile wait for it. A client that
/// gives up does not spoil the open for the others. An open that failed is tried again by the next client.
/// </para>
/// <para>
/// All clients of an export use the same context, so the filter always offers multi-conn, and it offers a parallel thread model
/// over a plugin of any: the library serializes the calls at the plugin's door. Over a plugin that takes one connection at a
/// time (<see cref="ThreadModel.SerializeConnections"/>) any number of clients share one export; a client that asks for another
/// one waits until the last of them has left, and then the context is replaced. Over one that wants its replies in order
/// (<see cref="ThreadModel.SerializeRetirement"/>) the model stays as it is.
/// </para>
/// <para>
/// The layers below do not learn who the clients are, as the context belongs to none of them. A filter that repairs a context by
/// opening it again, such as <see cref="RetryFilter"/>, belongs below this one.
/// </para>
/// </remarks>
public sealed partial class OpenonceFilter : INbdFilter
{
    /// <summary>The filter in the catalogue.</summary>
    /// <remarks><c>openonce-idle</c> is not known to nbdkit.</remarks>
    public static NbdFilterEntry Entry { get; } = new(
        "openonce",
        "opens the layers below once for all connections",
        [new NbdParameter("openonce-idle", "close a context that nobody has used for so long (default: at the end)")],
        parameters => new OpenonceFilter { IdleTime = parameters.Delay("openonce-idle") });

    /// <summary>
    /// How long a context is kept after the last client that used it has left: from zero, not at all, to 49 days. Null, the
    /// default, to keep it until the chain stops.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan? IdleTime { get; init => field = value is { } time ? TimerRange.Checked(time) : null; }

    /// <summary>The clock. The system's by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public TimeProvider TimeProvider
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "openonce";

    /// <inheritdoc/>
    public ThreadModel GetThreadModel(ThreadModel next)
        => next == ThreadModel.SerializeRetirement ? next : ThreadModel.Parallel;

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        Shared shared = await AcquireAsync(context, cancellationToken).ConfigureAwait(false);
        try
        {
            context.SetNext(shared.Opening.Result);
            return new Handle(this, context, shared);
        }
        catch
        {
            Release(shared);
            throw;
        }
    }

    private sealed class Handle(OpenonceFilter filter, NbdContext context, Shared shared) : INbdFilterHandle
    {
        public bool KeepsNext => true;

        public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
            => new(next.Info with { CanMultiConn = true });

        public ValueTask CloseAsync()
        {
            context.SetNext(null);
            filter.Release(shared);
            return default;
        }
    }
}
