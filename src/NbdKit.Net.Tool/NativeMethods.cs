using System.Runtime.InteropServices;

namespace NbdKit.Tool;

/// <summary>The few calls of the C library that .NET has no method for.</summary>
internal static class NativeMethods
{
    public const int SignalTerminate = 15;

    private const int SetParentDeathSignal = 1;

    /// <summary>Asks Linux for a signal when the parent ends.</summary>
    public static bool SignalOnParentDeath(int signal) => Prctl(SetParentDeathSignal, (nuint)signal, 0, 0, 0) == 0;

    [DllImport("libc", EntryPoint = "getppid")]
    public static extern int ParentProcessId();

    [DllImport("libc", EntryPoint = "kill")]
    public static extern int SendSignal(int processId, int signal);

    [DllImport("libc", EntryPoint = "prctl")]
    private static extern int Prctl(int operation, nuint argument2, nuint argument3, nuint argument4, nuint argument5);
}
