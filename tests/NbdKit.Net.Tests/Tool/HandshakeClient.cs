using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;

namespace NbdKit.Tests.Tool;

/// <summary>As much of an NBD client as it takes to see that somebody serves, every byte by hand.</summary>
internal static class HandshakeClient
{
    private const ulong OptionMagic = 0x49484156454F5054;

    /// <summary>Connects to one of the URIs that the command prints.</summary>
    public static async Task<Stream> ConnectAsync(string uri, CancellationToken cancellationToken)
    {
        var parsed = new Uri(uri);
        Socket socket;
        if (parsed.Scheme == "nbd+unix")
        {
            string path = Uri.UnescapeDataString(parsed.Query["?socket=".Length..]);
            socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellationToken);
        }
        else
        {
            socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
            await socket.ConnectAsync(new DnsEndPoint(parsed.Host, parsed.Port), cancellationToken);
        }
        return new NetworkStream(socket, ownsSocket: true);
    }

    /// <summary>Opens the default export with NBD_OPT_EXPORT_NAME.</summary>
    /// <returns>The handshake flags of the server, the size and the transmission flags of the export.</returns>
    public static async Task<(ushort Handshake, long Size, ushort Flags)> OpenAsync(
        Stream input, Stream output, CancellationToken cancellationToken)
    {
        byte[] greeting = new byte[18];
        await input.ReadExactlyAsync(greeting, cancellationToken);
        Assert.That(greeting.AsSpan(0, 16).SequenceEqual("NBDMAGICIHAVEOPT"u8), Is.True);
        ushort handshake = BinaryPrimitives.ReadUInt16BigEndian(greeting.AsSpan(16));
        byte[] message = new byte[4 + 16];
        BinaryPrimitives.WriteUInt32BigEndian(message, handshake);
        BinaryPrimitives.WriteUInt64BigEndian(message.AsSpan(4), OptionMagic);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(12), 1);
        await output.WriteAsync(message, cancellationToken);
        await output.FlushAsync(cancellationToken);
        // Without the flag "no zeroes" 124 of them follow.
        byte[] reply = new byte[(handshake & 2) != 0 ? 10 : 134];
        await input.ReadExactlyAsync(reply, cancellationToken);
        return (handshake, BinaryPrimitives.ReadInt64BigEndian(reply), BinaryPrimitives.ReadUInt16BigEndian(reply.AsSpan(8)));
    }

    /// <summary>Reads bytes with NBD_CMD_READ and takes the simple reply.</summary>
    public static async Task<byte[]> ReadAsync(
        Stream input, Stream output, long offset, int length, CancellationToken cancellationToken)
    {
        await output.WriteAsync(Request(0, offset, length), cancellationToken);
        await output.FlushAsync(cancellationToken);
        byte[] reply = new byte[16 + length];
        await input.ReadExactlyAsync(reply, cancellationToken);
        Assert.That(Convert.ToHexString(reply, 0, 8), Is.EqualTo("6744669800000000"));
        return reply[16..];
    }

    /// <summary>Says goodbye with NBD_CMD_DISC.</summary>
    public static async Task DisconnectAsync(Stream output, CancellationToken cancellationToken)
    {
        await output.WriteAsync(Request(2, 0, 0), cancellationToken);
        await output.FlushAsync(cancellationToken);
    }

    private static byte[] Request(ushort type, long offset, int length)
    {
        byte[] request = new byte[28];
        BinaryPrimitives.WriteUInt32BigEndian(request, 0x25609513);
        BinaryPrimitives.WriteUInt16BigEndian(request.AsSpan(6), type);
        BinaryPrimitives.WriteInt64BigEndian(request.AsSpan(16), offset);
        BinaryPrimitives.WriteInt32BigEndian(request.AsSpan(24), length);
        return request;
    }
}
