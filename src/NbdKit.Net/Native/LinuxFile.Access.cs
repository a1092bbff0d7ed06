using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace NbdKit.Native;

// fcntl(2). The flags have these values on x64 and arm64 alike.
internal static partial class LinuxFile
{
    private const int GetDescriptorFlags = 1;
    private const int GetStatusFlags = 3;
    private const int ClosesOnExec = 1;
    private const int AccessBits = 3;
    private const int ReadWriteAccess = 2;
    private const int AppendFlag = 0x400;
    private const int PathFlag = 0x20_0000;

    /// <summary>
    /// Whether a descriptor is open that a program which begins would inherit. The runtime's own are not: they close then.
    /// </summary>
    public static bool IsInherited(int number)
    {
        using var file = new SafeFileHandle(number, ownsHandle: false);
        int flags = AskDescriptor(file, GetDescriptorFlags, 0);
        return flags >= 0 && (flags & ClosesOnExec) == 0;
    }

    /// <summary>What a file was opened for.</summary>
    public static int AccessOf(SafeFileHandle file, out HandleAccess access)
    {
        int flags = AskDescriptor(file, GetStatusFlags, 0);
        access = flags < 0 || (flags & PathFlag) != 0 ? HandleAccess.None : (flags & AccessBits) switch
        {
            0 => HandleAccess.Read,
            ReadWriteAccess => (flags & AppendFlag) != 0 ? HandleAccess.Append : HandleAccess.ReadWrite,
            _ => HandleAccess.None,
        };
        return Error(flags);
    }

    [DllImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static extern int AskDescriptor(SafeFileHandle file, int command, int argument);
}
