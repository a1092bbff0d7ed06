using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Text;
using NbdKit.Protocol;

namespace NbdKit.Benchmarks.Load;

/// <summary>The least that a client has to say before its first request, with calls that block.</summary>
internal static class LoadHandshake
{
    public const int GreetingSize = 18;

    private const int OptionReplySize = 20;

    // No server that is asked for a disk is silent for so long.
    private const int TimeoutMilliseconds = 30_000;

    private static readonly byte[] GoMessage = Go("");

    public static Socket Connect(EndPoint endPoint, int timeoutMilliseconds = TimeoutMilliseconds)
    {
        var socket = new Socket(endPoint.AddressFamily, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            if (endPoint is IPEndPoint)
            {
                socket.NoDelay = true;
            }
            socket.ReceiveTimeout = timeoutMilliseconds;
            socket.SendTimeout = timeoutMilliseconds;
            socket.Connect(endPoint);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Connects and enters transmission.</summary>
    /// <returns>The connection and the size of the disk.</returns>
    public static (Socket Socket, long Size) Open(EndPoint endPoint) => Open(endPoint, GoMessage);

    /// <summary>Connects and enters transmission with a message of <see cref="Go"/>.</summary>
    public static (Socket Socket, long Size) Open(EndPoint endPoint, byte[] go, int timeoutMilliseconds = TimeoutMilliseconds)
    {
        Socket socket = Connect(endPoint, timeoutMilliseconds);
        try
        {
            Span<byte> greeting = stackalloc byte[GreetingSize];
            ReceiveExactly(socket, greeting);
            if (BinaryPrimitives.ReadUInt64BigEndian(greeting) != Magic.Init)
            {
                throw new InvalidDataException("This is not an NBD server.");
            }
            SendAll(socket, go);
            return (socket, ReceiveSize(socket));
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    public static void SendAll(Socket socket, ReadOnlySpan<byte> bytes)
    {
        while (bytes.Length > 0)
        {
            bytes = bytes[socket.Send(bytes)..];
        }
    }

    public static void ReceiveExactly(Socket socket, Span<byte> buffer)
    {
        while (buffer.Length > 0)
        {
            int received = socket.Receive(buffer);
            if (received == 0)
            {
                throw new EndOfStreamException("The server ended the connection.");
            }
            buffer = buffer[received..];
        }
    }

    /// <summary>The length of what follows an option reply's header, and what it is.</summary>
    public static (OptionReplyType Type, int Length) ParseOptionReply(ReadOnlySpan<byte> header)
    {
        var type = (OptionReplyType)BinaryPrimitives.ReadUInt32BigEndian(header[12..]);
        uint length = BinaryPrimitives.ReadUInt32BigEndian(header[16..]);
        if (BinaryPrimitives.ReadUInt64BigEndian(header) != Magic.OptionReply || length > 4096)
        {
            throw new InvalidDataException("This is not a reply to an option.");
        }
        return type is OptionReplyType.Info or OptionReplyType.Ack
            ? (type, (int)length)
            : throw new InvalidDataException($"The server refused: {(uint)type:x}.");
    }

    private static long ReceiveSize(Socket socket)
    {
        Span<byte> header = stackalloc byte[OptionReplySize];
        Span<byte> data = stackalloc byte[4096];
        long size = 0;
        while (true)
        {
            ReceiveExactly(socket, header);
            (OptionReplyType type, int length) = ParseOptionReply(header);
            ReceiveExactly(socket, data[..length]);
            if (type == OptionReplyType.Ack)
            {
                return size;
            }
            // NBD_INFO_EXPORT is type 0: the size follows.
            if (length >= 10 && BinaryPrimitives.ReadUInt16BigEndian(data) == 0)
            {
                size = BinaryPrimitives.ReadInt64BigEndian(data[2..]);
            }
        }
    }

    /// <summary>Client flags, then NBD_OPT_GO for an export without information requests, in one piece.</summary>
    public static byte[] Go(string exportName)
    {
        byte[] message = new byte[4 + 16 + 4 + exportName.Length + 2];
        BinaryPrimitives.WriteUInt32BigEndian(message, (uint)(HandshakeFlags.FixedNewstyle | HandshakeFlags.NoZeroes));
        BinaryPrimitives.WriteUInt64BigEndian(message.AsSpan(4), Magic.Option);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(12), (uint)OptionType.Go);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(16), (uint)(message.Length - 20));
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(20), (uint)exportName.Length);
        Encoding.ASCII.GetBytes(exportName, message.AsSpan(24));
        return message;
    }
}
