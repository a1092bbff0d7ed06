using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;
using NbdKit.Protocol;
using NbdKit.Transports;

namespace NbdKit.Client;

/// <summary>Whom to connect to, or what is connected already, and what to ask for.</summary>
internal sealed record ClientTarget
{
    private ClientTarget(NbdClientOptions options)
    {
        WireString.Check(options.ExportName, "export name");
        foreach (string context in options.MetaContexts)
        {
            WireString.Check(context, "meta context");
        }
        Options = options;
    }

    /// <summary>What to ask for, with what a URI says in place of what the host said.</summary>
    public NbdClientOptions Options { get; }

    /// <summary>Where to connect to; null if there is a connection.</summary>
    public EndPoint? EndPoint { get; private init; }

    /// <summary>The connection; null if there is none yet.</summary>
    public Transport? Transport { get; private init; }

    /// <summary>The name of the host as it was given, which its certificate must carry; null if it has none.</summary>
    public string? Host => EndPoint switch
    {
        DnsEndPoint dns => dns.Host,
        IPEndPoint ip => ip.Address.ToString(),
        _ => null,
    };

    public static ClientTarget For(Uri uri, NbdClientOptions options)
    {
        ArgumentNullException.ThrowIfNull(uri);
        return For(uri.OriginalString, options);
    }

    public static ClientTarget For(string uri, NbdClientOptions options)
    {
        ArgumentNullException.ThrowIfNull(uri);
        NbdUri parsed = NbdUri.Parse(uri, options.AllowLocalFilesInUris);
        return new(parsed.Apply(options)) { EndPoint = parsed.EndPoint };
    }

    public static ClientTarget For(EndPoint endPoint, NbdClientOptions options)
    {
        ArgumentNullException.ThrowIfNull(endPoint);
        return new(options) { EndPoint = endPoint };
    }

    public static ClientTarget For(Socket socket, NbdClientOptions options)
    {
        ArgumentNullException.ThrowIfNull(socket);
        if (socket.SocketType != SocketType.Stream || !socket.Connected)
        {
            throw new ArgumentException("The socket is not a connected stream socket.", nameof(socket));
        }
        return new(options) { Transport = ClientConnector.TransportFor(socket) };
    }

    public static ClientTarget For(Stream stream, NbdClientOptions options)
    {
        ArgumentNullException.ThrowIfNull(stream);
        if (!stream.CanRead || !stream.CanWrite)
        {
            throw new ArgumentException("The stream cannot be both read and written.", nameof(stream));
        }
        return new(options) { Transport = new StreamTransport(stream) };
    }

    public static ClientTarget For(IDuplexPipe pipe, NbdClientOptions options)
    {
        ArgumentNullException.ThrowIfNull(pipe);
        return new(options) { Transport = new PipeTransport(pipe) };
    }
}
