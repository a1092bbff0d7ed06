using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using NbdKit.Buffers;

namespace NbdKit.Native;

/// <summary>
/// Plain system calls on a socket. The runtime's own would hide how much of a send was done before its time limit, and put
/// the socket into an event loop.
/// </summary>
internal static class LinuxSocket
{
    private const int Interrupted = 4;
    private const int WouldBlock = 11;
    private const int DontWait = 0x40;
    private const int NoSignal = 0x4000;
    private const int More = 0x8000;
    private const int GetFlags = 3;
    private const int SetFlags = 4;
    private const int NonBlocking = 0x800;
    private const int MaxVectors = 128;

    /// <summary>Makes calls wait, whatever was done with the socket before.</summary>
    public static void MakeBlocking(SafeSocketHandle socket)
    {
        int flags = fcntl(socket, GetFlags, 0);
        if (flags >= 0 && (flags & NonBlocking) != 0)
        {
            _ = fcntl(socket, SetFlags, flags & ~NonBlocking);
        }
    }

    /// <summary>Receives, waiting as long as the socket's time limit or not at all; -1 if nothing came.</summary>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static int Receive(SafeSocketHandle socket, Span<byte> buffer, bool wait)
    {
        nint received;
        do
        {
            received = recv(socket, ref MemoryMarshal.GetReference(buffer), buffer.Length, wait ? 0 : DontWait);
        }
        while (received < 0 && IsInterrupted());
        return (int)received;
    }

    /// <summary>Receives into lent memory from a position on, waiting as long as the socket's time limit; -1 if nothing came.</summary>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static int Receive(SafeSocketHandle socket, Loan loan, int position)
    {
        Span<IoVector> vectors = stackalloc IoVector[MaxVectors];
        int count = loan.FillVectors(position, vectors);
        nint received;
        do
        {
            received = readv(socket, ref MemoryMarshal.GetReference(vectors), count);
        }
        while (received < 0 && IsInterrupted());
        return (int)received;
    }

    /// <summary>Sends, waiting as long as the socket's time limit; -1 if nothing could be sent.</summary>
    /// <param name="socket">The socket.</param>
    /// <param name="bytes">The bytes.</param>
    /// <param name="more">Whether more follows at once, so that TCP does not make a segment of these alone.</param>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static int Send(SafeSocketHandle socket, ReadOnlySpan<byte> bytes, bool more = false)
    {
        nint sent;
        do
        {
            sent = send(socket, ref MemoryMarshal.GetReference(bytes), bytes.Length, more ? NoSignal | More : NoSignal);
        }
        while (sent < 0 && IsInterrupted());
        return (int)sent;
    }

    /// <summary>
    /// Sends bytes and lent memory behind them, from a position in both on, waiting as long as the socket's time limit; -1 if
    /// nothing could be sent.
    /// </summary>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static int Send(SafeSocketHandle socket, ReadOnlySpan<byte> pinned, Loan loan, int position)
    {
        Span<IoVector> vectors = stackalloc IoVector[MaxVectors];
        int used = 0;
        if (position < pinned.Length)
        {
            vectors[used++] = new IoVector(AddressOf(pinned[position..]), pinned.Length - position);
        }
        used += loan.FillVectors(Math.Max(0, position - pinned.Length), vectors[used..]);
        nint sent;
        do
        {
            // Without a flag against the signal of a broken connection: the runtime ignores it for the whole process.
            sent = writev(socket, ref MemoryMarshal.GetReference(vectors), used);
        }
        while (sent < 0 && IsInterrupted());
        return (int)sent;
    }

    /// <summary>Whether a call is to be made again; throws if the connection failed, false if there was nothing to do.</summary>
    internal static bool IsInterrupted()
    {
        int error = Marshal.GetLastPInvokeError();
        return error switch
        {
            Interrupted => true,
            WouldBlock => false,
            _ => throw new SocketException((int)ErrorFor(error)),
        };
    }

    private static nint AddressOf(ReadOnlySpan<byte> pinned)
        => Unsafe.ByteOffset(ref Unsafe.NullRef<byte>(), ref MemoryMarshal.GetReference(pinned));

    private static SocketError ErrorFor(int errno) => errno switch
    {
        32 => SocketError.Shutdown,
        104 => SocketError.ConnectionReset,
        110 => SocketError.TimedOut,
        _ => SocketError.SocketError,
    };

    [DllImport("libc", SetLastError = true)]
    private static extern nint recv(SafeSocketHandle socket, ref byte buffer, nint length, int flags);

    [DllImport("libc", SetLastError = true)]
    private static extern nint send(SafeSocketHandle socket, ref byte buffer, nint length, int flags);

    [DllImport("libc", SetLastError = true)]
    private static extern nint readv(SafeSocketHandle socket, ref IoVector vectors, int count);

    [DllImport("libc", SetLastError = true)]
    private static extern nint writev(SafeSocketHandle socket, ref IoVector vectors, int count);

    [DllImport("libc", SetLastError = true)]
    private static extern int fcntl(SafeSocketHandle socket, int command, int argument);
}
