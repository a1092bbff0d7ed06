using System.Net;
using System.Net.Sockets;
using System.Reflection;
using System.Text;

namespace NbdKit.Plugins;

/// <summary>
/// A small read-only disk that tells a client something about itself or about the server (nbdkit-info-plugin(1)): good for testing
/// clients and filters, and for measuring how old an answer is.
/// </summary>
/// <remarks>
/// The times are 12 bytes: 8 of seconds and 4 of microseconds, the most significant byte first; each read tells the time anew, so
/// read them at once. Uptime and connection time come from a clock that is never set. Only the modes of the export name and of
/// the version are multi-conn.
/// </remarks>
public sealed class InfoPlugin : INbdPlugin
{
    private long _start;

    /// <summary>The plugin in the catalogue: <c>info</c>, with the magic parameter <c>mode</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "info",
        "tells a client its export name, its address, the time or the version",
        [
            new NbdParameter(
                "mode", "exportname, base64exportname, address, time, uptime, conntime or version (exportname)"),
        ],
        parameters => new InfoPlugin
        {
            Mode = parameters.OneOf(
                "mode",
                ("exportname", InfoMode.ExportName),
                ("export-name", InfoMode.ExportName),
                ("base64exportname", InfoMode.Base64ExportName),
                ("base64-export-name", InfoMode.Base64ExportName),
                ("address", InfoMode.Address),
                ("time", InfoMode.Time),
                ("uptime", InfoMode.Uptime),
                ("conntime", InfoMode.ConnectionTime),
                ("version", InfoMode.Version)) ?? InfoMode.ExportName,
        })
    {
        MagicParameter = "mode",
    };

    /// <summary>What the disk holds.</summary>
    /// <value><see cref="InfoMode.ExportName"/> by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not one of the enumeration.</exception>
    public InfoMode Mode
    {
        get;
        init => field = value is >= InfoMode.ExportName and <= InfoMode.Version
            ? value
            : throw new ArgumentOutOfRangeException(nameof(Mode), value, "There is no such mode.");
    }

    /// <summary>Where the times come from.</summary>
    /// <value>The system's clock by default.</value>
    public TimeProvider TimeProvider { get; init; } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "info";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <inheritdoc/>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        _start = TimeProvider.GetTimestamp();
        return default;
    }

    /// <inheritdoc/>
    /// <exception cref="NbdException">The export name is no base64, and the mode wants that (EINVAL).</exception>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        return new(Mode switch
        {
            InfoMode.ExportName => new InfoText(Encoding.UTF8.GetBytes(context.ExportName), isSame: true),
            InfoMode.Base64ExportName => new InfoText(Decode(context.ExportName), isSame: true),
            InfoMode.Address => new InfoText(Encoding.UTF8.GetBytes(AddressOf(context.Connection?.Peer)), isSame: false),
            InfoMode.Version => new InfoText(Encoding.UTF8.GetBytes(VersionText()), isSame: true),
            InfoMode.Time => new InfoClock(TimeProvider, since: null),
            InfoMode.Uptime => new InfoClock(TimeProvider, _start),
            _ => new InfoClock(TimeProvider, TimeProvider.GetTimestamp()),
        });
    }

    // What follows a plus is where the library was built from.
    private static string VersionText()
        => typeof(InfoPlugin).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!
            .InformationalVersion.Split('+')[0];

    private static byte[] Decode(string name)
    {
        try
        {
            return Convert.FromBase64String(name);
        }
        catch (FormatException e)
        {
            throw new NbdException(NbdError.InvalidArgument, "the export name is not base64", e);
        }
    }

    // The path of a socket is the host's own business.
    private static string AddressOf(NbdPeer? peer) => peer switch
    {
        { ProcessId: not null } or { EndPoint: UnixDomainSocketEndPoint } => "unix",
        { EndPoint: IPEndPoint address } => address.ToString(),
        _ => "",
    };
}
