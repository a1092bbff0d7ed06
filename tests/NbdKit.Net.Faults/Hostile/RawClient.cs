using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Hostile;

/// <summary>A client of plain blocking system calls, which does what it is told and keeps no rule by itself.</summary>
internal sealed class RawClient : IDisposable
{
    private const int Milliseconds = 20_000;

    private RawClient(Socket socket) => Socket = socket;

    public Socket Socket { get; }

    /// <summary>The bytes that were sent.</summary>
    public long Sent { get; private set; }

    /// <summary>The bytes that were received.</summary>
    public long Received { get; private set; }

    /// <summary>Connects, and exchanges nothing yet.</summary>
    /// <param name="endPoint">Where to.</param>
    /// <param name="receiveBuffer">What the kernel keeps of unread bytes; its own choice if zero.</param>
    public static RawClient Connect(EndPoint endPoint, int receiveBuffer = 0)
    {
        bool isUnix = endPoint.AddressFamily == AddressFamily.Unix;
        var socket = new Socket(endPoint.AddressFamily, SocketType.Stream, isUnix ? ProtocolType.Unspecified : ProtocolType.Tcp);
        try
        {
            if (receiveBuffer > 0)
            {
                socket.ReceiveBufferSize = receiveBuffer;
            }
            socket.Connect(endPoint);
            socket.ReceiveTimeout = Milliseconds;
            socket.SendTimeout = Milliseconds;
            if (!isUnix)
            {
                socket.NoDelay = true;
            }
            return new RawClient(socket);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Connects and enters transmission.</summary>
    public static RawClient Go(EndPoint endPoint, string name = "", int receiveBuffer = 0)
    {
        RawClient client = Connect(endPoint, receiveBuffer);
        try
        {
            client.Greet();
            client.Go(name);
            return client;
        }
        catch
        {
            client.Dispose();
            throw;
        }
    }

    /// <summary>Reads the greeting and answers it.</summary>
    public void Greet()
    {
        _ = Receive(18);
        Send(new WireBytes().U32(3).ToArray());
    }

    /// <summary>Enters transmission.</summary>
    public void Go(string name = "")
    {
        Send(WireBytes.Option(Opt.Go, WireBytes.InfoRequest(System.Text.Encoding.UTF8.GetBytes(name))));
        uint type;
        while ((type = ReceiveOptionReply()) != Rep.Ack)
        {
            if ((type & 0x80000000) != 0)
            {
                throw new InvalidOperationException($"The server answered NBD_OPT_GO with {type:x}.");
            }
        }
    }

    /// <summary>Reads one reply to an option, and drops its data.</summary>
    /// <returns>The type of the reply.</returns>
    public uint ReceiveOptionReply()
    {
        byte[] header = Receive(20);
        if (BinaryPrimitives.ReadUInt64BigEndian(header) != Magic.OptionReply)
        {
            throw new InvalidOperationException("The server sent something that is no option reply.");
        }
        _ = Receive((int)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(16)));
        return BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(12));
    }

    /// <summary>Asks for a range, without waiting for the reply.</summary>
    public void AskRead(ulong cookie, ulong offset, uint length) => Send(WireBytes.Request(Cmd.Read, cookie, offset, length));

    public void Send(ReadOnlySpan<byte> bytes)
    {
        while (bytes.Length > 0)
        {
            int sent = Socket.Send(bytes);
            Sent += sent;
            bytes = bytes[sent..];
        }
    }

    /// <summary>Receives exactly so many bytes.</summary>
    public byte[] Receive(int count)
    {
        byte[] bytes = new byte[count];
        int have = 0;
        while (have < count)
        {
            int received = Socket.Receive(bytes.AsSpan(have));
            if (received == 0)
            {
                throw new EndOfStreamException($"The server closed the connection after {have} of {count} bytes.");
            }
            have += received;
        }
        Received += count;
        return bytes;
    }

    /// <summary>Whether the server has closed the connection; drops what it sent before that.</summary>
    public bool IsClosed()
    {
        Span<byte> dropped = stackalloc byte[4096];
        try
        {
            while (Socket.Poll(0, SelectMode.SelectRead))
            {
                int received = Socket.Receive(dropped);
                if (received == 0)
                {
                    return true;
                }
                Received += received;
            }
            return false;
        }
        catch (SocketException)
        {
            return true;
        }
    }

    /// <summary>Goes without a goodbye, if it has not gone yet: a reset where there is such a thing.</summary>
    public void Drop()
    {
        if (!Socket.SafeHandle.IsClosed && Socket.AddressFamily != AddressFamily.Unix)
        {
            Socket.LingerState = new LingerOption(true, 0);
        }
        Socket.Dispose();
    }

    public void Dispose() => Socket.Dispose();
}
