using System.Text;

namespace NbdKit.Filters;

/// <summary>
/// Gives clients that do not encrypt a small disk with a message, and keeps them away from everything below
/// (nbdkit-tls-fallback-filter(1)).
/// </summary>
/// <remarks>
/// <para>
/// For a server that offers TLS and does not require it (<see cref="NbdServerTls.IsRequired"/> false). In plain text every
/// export name opens the same read-only export of 512 bytes, the list holds only that, and no layer below is asked anything but
/// whether the client may connect. Encrypted clients get what is below unchanged. A context that belongs to no client is taken
/// for what its opener said it is for.
/// </para>
/// <para>
/// It should be the outermost filter. A chain that serves one connection at a time is refused when it starts: one client in
/// plain text would keep all others out.
/// </para>
/// </remarks>
public sealed class TlsFallbackFilter : INbdFilter
{
    /// <summary>The size of the export that plain text gets, and the most that <see cref="Message"/> may take, in bytes.</summary>
    public const int Size = 512;

    // What encrypted clients get.
    private readonly NofilterFilter _passing = new();

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "tls-fallback",
        "give clients without TLS a small disk with a message only",
        [new NbdParameter("tlsreadme", "the message, up to 512 bytes (default: that TLS is needed)")],
        parameters =>
        {
            try
            {
                return parameters.Text("tlsreadme") is { } text ? new TlsFallbackFilter { Message = text } : new TlsFallbackFilter();
            }
            catch (ArgumentException e)
            {
                throw new ArgumentException($"tls-fallback: tlsreadme=: {e.Message}", e);
            }
        });

    /// <summary>What the disk in plain text begins with, in UTF-8; zeroes follow.</summary>
    /// <value>By default a sentence that says that TLS is needed.</value>
    /// <exception cref="ArgumentException">It takes more than <see cref="Size"/> bytes.</exception>
    public string Message
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value, nameof(Message));
            if (Encoding.UTF8.GetByteCount(value) > Size)
            {
                throw new ArgumentException($"The message takes more than {Size} bytes.", nameof(Message));
            }
            field = value;
        }
    } = "This server serves its data over TLS only. Connect with TLS to see it.\n";

    /// <inheritdoc/>
    public string Name => "tls-fallback";

    /// <inheritdoc/>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
        => model == ThreadModel.SerializeConnections
            ? throw new InvalidOperationException(
                "tls-fallback: a layer below serves one connection at a time, so a client in plain text would keep all others out.")
            : default;

    /// <inheritdoc/>
    public ValueTask ListExportsAsync(
        NbdBackend next,
        ExportList exports,
        bool readOnly,
        NbdConnection? connection,
        CancellationToken cancellationToken)
    {
        if (connection is { IsTls: false })
        {
            exports.AddDefault();
            return default;
        }
        return next.ListExportsAsync(exports, readOnly, connection, cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask<string?> DefaultExportAsync(
        NbdBackend next, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => connection is { IsTls: false } ? new("") : next.DefaultExportAsync(readOnly, connection, cancellationToken);

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        // The host itself, with neither a client nor a shared context, is no stranger.
        if (!context.IsTls && (context.Connection is not null || context.IsShared))
        {
            return new FallbackDisk(Message);
        }
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return _passing;
    }
}
