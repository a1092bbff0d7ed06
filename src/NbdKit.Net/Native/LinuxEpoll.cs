using System.Runtime.InteropServices;

namespace NbdKit.Native;

/// <summary>The calls of epoll(7) that watching idle sockets needs.</summary>
internal static class LinuxEpoll
{
    public const int Add = 1;
    public const int Modify = 3;
    public const uint Readable = 0x001;
    public const uint Writable = 0x004;
    public const uint Failed = 0x008 | 0x010;
    public const uint OneShot = 1u << 30;

    /// <summary>The kernel packs struct epoll_event on x86-64, and only there.</summary>
    public static int EventSize { get; } = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 12 : 16;

    private const int CloseOnExec = 0x80000;

    public static int Create() => epoll_create1(CloseOnExec);

    public static int Control(int poller, int operation, int descriptor, uint events, long data)
    {
        Span<byte> bytes = stackalloc byte[16];
        MemoryMarshal.Write(bytes, events);
        MemoryMarshal.Write(bytes[(EventSize - 8)..], data);
        return epoll_ctl(poller, operation, descriptor, ref MemoryMarshal.GetReference(bytes));
    }

    public static int Wait(int poller, Span<byte> events)
        => epoll_wait(poller, ref MemoryMarshal.GetReference(events), events.Length / EventSize, -1);

    public static (uint Events, long Data) Read(ReadOnlySpan<byte> events, int index)
    {
        ReadOnlySpan<byte> one = events.Slice(index * EventSize, EventSize);
        return (MemoryMarshal.Read<uint>(one), MemoryMarshal.Read<long>(one[(EventSize - 8)..]));
    }

    /// <summary>A descriptor that becomes readable when it is signalled: eventfd(2).</summary>
    public static int CreateSignal() => eventfd(0, CloseOnExec);

    public static void Signal(int descriptor)
    {
        long one = 1;
        _ = write(descriptor, ref one, sizeof(long));
    }

    public static void Close(int descriptor) => _ = close(descriptor);

    [DllImport("libc", SetLastError = true)]
    private static extern int epoll_create1(int flags);

    [DllImport("libc", SetLastError = true)]
    private static extern int epoll_ctl(int poller, int operation, int descriptor, ref byte epollEvent);

    [DllImport("libc", SetLastError = true)]
    private static extern int epoll_wait(int poller, ref byte events, int maximum, int timeout);

    [DllImport("libc")]
    private static extern int eventfd(uint value, int flags);

    [DllImport("libc")]
    private static extern nint write(int descriptor, ref long value, nint count);

    [DllImport("libc")]
    private static extern int close(int descriptor);
}
