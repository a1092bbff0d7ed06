using System.Runtime.InteropServices;

namespace NbdKit.Native;

/// <summary>How many descriptors a process may have: getrlimit(2).</summary>
internal static class LinuxDescriptors
{
    private const int NumberOfFiles = 7;

    /// <summary>The number from which on there are no descriptors; a huge one where that is not known.</summary>
    public static long Limit
        => OperatingSystem.IsLinux() && Environment.Is64BitProcess
            && getrlimit(NumberOfFiles, out Limits limits) == 0 && limits.Soft < long.MaxValue
                ? (long)limits.Soft
                : long.MaxValue;

    /// <summary>Whether a new descriptor would have a number below some limit. The system gives out the lowest that is free.</summary>
    public static bool AreFreeBelow(long limit)
    {
        try
        {
            using Microsoft.Win32.SafeHandles.SafeFileHandle probe = File.OpenHandle("/dev/null", FileMode.Open, FileAccess.Read);
            return probe.DangerousGetHandle() < limit;
        }
        catch (IOException)
        {
            return false;
        }
    }

    [DllImport("libc")]
    private static extern int getrlimit(int resource, out Limits limits);

    [StructLayout(LayoutKind.Sequential)]
    private readonly struct Limits
    {
        public readonly ulong Soft;
        public readonly ulong Hard;
    }
}
