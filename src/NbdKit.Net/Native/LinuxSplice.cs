using System.Net.Sockets;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using NbdKit.Buffers;

namespace NbdKit.Native;

/// <summary>Sends memory and files to a socket without a copy: the kernel passes its pages on by reference.</summary>
internal static class LinuxSplice
{
    /// <summary>What a new pipe takes: 16 pages, each in a slot of its own.</summary>
    private const int PipeSlots = 16;

    private const int CloseOnExec = 0x80000;
    private const int NonBlocking = 2;
    private const int Move = 1;

    /// <summary>Makes a pipe; false if there is none to be had.</summary>
    public static bool TryOpenPipe(out int input, out int output)
    {
        Span<int> ends = [-1, -1];
        bool opened = pipe2(ref MemoryMarshal.GetReference(ends), CloseOnExec) == 0;
        (output, input) = (ends[0], ends[1]);
        return opened;
    }

    public static void ClosePipe(int input, int output)
    {
        _ = close(input);
        _ = close(output);
    }

    /// <summary>Puts pages of lent memory from a position on into an empty pipe, as many as it takes.</summary>
    /// <returns>The number of bytes; -1 if the kernel refused.</returns>
    public static int Fill(int pipe, Loan loan, int position)
    {
        Span<IoVector> one = stackalloc IoVector[1];
        _ = loan.FillVectors(position, one);
        IoVector vector = one[0].AtMost(PipeSlots * Environment.SystemPageSize - one[0].OffsetInPage);
        return (int)vmsplice(pipe, vector, 1, NonBlocking);
    }

    /// <summary>Sends what a pipe holds, waiting as long as the socket's time limit; -1 if nothing could be sent.</summary>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static int Send(SafeSocketHandle socket, int pipe, int count)
    {
        nint sent;
        do
        {
            sent = splice(pipe, 0, socket, 0, count, Move);
        }
        while (sent < 0 && LinuxSocket.IsInterrupted());
        return (int)sent;
    }

    /// <summary>
    /// Sends part of a file, waiting for the socket as long as its time limit; -1 if nothing could be sent, 0 if the file ends
    /// before the part begins.
    /// </summary>
    /// <exception cref="SocketException">The connection, or the device of the file, failed.</exception>
    public static int Send(SafeSocketHandle socket, SafeFileHandle file, long offset, int count)
    {
        nint sent;
        do
        {
            sent = sendfile(socket, file, ref offset, count);
        }
        while (sent < 0 && LinuxSocket.IsInterrupted());
        return (int)sent;
    }

    [DllImport("libc", SetLastError = true)]
    private static extern int pipe2(ref int ends, int flags);

    [DllImport("libc")]
    private static extern int close(int descriptor);

    [DllImport("libc", SetLastError = true)]
    private static extern nint vmsplice(int pipe, in IoVector vector, nuint count, uint flags);

    [DllImport("libc", SetLastError = true)]
    private static extern nint splice(int from, nint fromOffset, SafeSocketHandle to, nint toOffset, nint count, uint flags);

    [DllImport("libc", SetLastError = true)]
    private static extern nint sendfile(SafeSocketHandle to, SafeFileHandle from, ref long offset, nint count);
}
