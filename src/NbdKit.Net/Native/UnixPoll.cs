using System.Runtime.InteropServices;

namespace NbdKit.Native;

/// <summary>Looks at file descriptors without touching what is in them.</summary>
internal static partial class UnixPoll
{
    private const short Error = 0x08;
    private const short HungUp = 0x10;
    private const short Invalid = 0x20;

    /// <summary>Whether it is a descriptor that is open.</summary>
    public static bool IsOpen(int descriptor) => descriptor >= 0 && (Look(descriptor) & Invalid) == 0;

    /// <summary>Whether nobody holds the other end any more, or there is none.</summary>
    public static bool IsHungUp(int descriptor) => (Look(descriptor) & (Error | HungUp | Invalid)) != 0;

    private static short Look(int descriptor)
    {
        var entry = new Entry { Descriptor = descriptor };
        return poll(ref entry, 1, 0) < 0 ? (short)0 : entry.Returned;
    }

    [LibraryImport("libc", EntryPoint = "poll", SetLastError = true)]
    private static partial int poll(ref Entry entries, nuint count, int timeout);

    private struct Entry
    {
        public int Descriptor;
        public short Asked;
        public short Returned;
    }
}
