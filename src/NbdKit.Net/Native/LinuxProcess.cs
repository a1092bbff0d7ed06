using System.Collections;
using System.Runtime.InteropServices;

namespace NbdKit.Native;

/// <summary>
/// Starts, signals and reaps child processes, each the leader of a process group of its own: so that whatever it has started
/// can be ended with it, and a descriptor can be given to it under a number.
/// </summary>
internal static class LinuxProcess
{
    public const int KillSignal = 9;
    public const int TerminateSignal = 15;

    // The C library's own structures are smaller: 80 and 336 bytes in glibc, and about the same in musl.
    private const int StructureBytes = 1024;

    private const short SetGroup = 2;
    private const short SetDefaultSignals = 4;
    private const short SetSignalMask = 8;

    private const int BrokenPipeSignal = 13;
    private const int NoHang = 1;

    /// <summary>Starts a program.</summary>
    /// <param name="program">A path, or a name that is looked for in the directories of PATH.</param>
    /// <param name="arguments">All arguments, beginning with the program's own name.</param>
    /// <param name="environment">Names and values; null for this process's own.</param>
    /// <param name="descriptors">What the child gets: its number there, and the descriptor here. None is inherited that is not named.</param>
    /// <param name="pid">The child's number.</param>
    /// <returns>The error number, 0 for success. That of a program that cannot be run is among them.</returns>
    public static int Start(
        string program,
        IReadOnlyList<string> arguments,
        IReadOnlyDictionary<string, string>? environment,
        ReadOnlySpan<(int Number, int Descriptor)> descriptors,
        out int pid)
    {
        nint actions = Marshal.AllocHGlobal(StructureBytes);
        nint attributes = Marshal.AllocHGlobal(StructureBytes);
        nint[] argumentTexts = Texts(arguments);
        nint[] variableTexts = Texts(Variables(environment));
        byte[] defaults = new byte[StructureBytes];
        byte[] mask = new byte[StructureBytes];
        // The runtime ignores it, and a child would inherit that.
        defaults[(BrokenPipeSignal - 1) / 8] |= 1 << ((BrokenPipeSignal - 1) % 8);
        try
        {
            _ = InitializeActions(actions);
            _ = InitializeAttributes(attributes);
            foreach ((int number, int descriptor) in descriptors)
            {
                _ = AddDuplicate(actions, descriptor, number);
            }
            _ = SetFlags(attributes, SetGroup | SetDefaultSignals | SetSignalMask);
            _ = SetProcessGroup(attributes, 0);
            _ = SetSignalDefaults(attributes, ref defaults[0]);
            _ = SetMask(attributes, ref mask[0]);
            return Spawn(out pid, program, actions, attributes, ref argumentTexts[0], ref variableTexts[0]);
        }
        finally
        {
            _ = DestroyActions(actions);
            _ = DestroyAttributes(attributes);
            Marshal.FreeHGlobal(actions);
            Marshal.FreeHGlobal(attributes);
            Free(argumentTexts);
            Free(variableTexts);
        }
    }

    /// <summary>Takes note of the end of a child that has ended.</summary>
    /// <param name="pid">The child.</param>
    /// <param name="status">Its exit code, or the negative number of the signal that ended it.</param>
    /// <returns>Whether it has ended; afterwards its number may be anybody's.</returns>
    public static bool TryReap(int pid, out int status)
    {
        int result = Wait(pid, out int raw, NoHang);
        // A child that is not there any more was reaped by somebody else, who knows how it ended.
        int code = result < 0 && Marshal.GetLastPInvokeError() != Errno.Interrupted ? int.MinValue : 0;
        status = result > 0 ? (raw & 0x7F) == 0 ? (raw >> 8) & 0xFF : -(raw & 0x7F) : code;
        return result > 0 || code != 0;
    }

    /// <summary>Sends a signal to a child that was not reaped, and to all that it has started, unless they left its group.</summary>
    public static void SignalGroup(int pid, int signal) => _ = SendSignal(-pid, signal);

    private static IEnumerable<string> Variables(IReadOnlyDictionary<string, string>? environment)
        => environment?.Select(pair => $"{pair.Key}={pair.Value}")
            ?? Environment.GetEnvironmentVariables().Cast<DictionaryEntry>().Select(entry => $"{entry.Key}={entry.Value}");

    private static nint[] Texts(IEnumerable<string> texts)
        => [.. texts.Select(Marshal.StringToCoTaskMemUTF8), nint.Zero];

    private static void Free(nint[] texts)
    {
        foreach (nint text in texts)
        {
            Marshal.FreeCoTaskMem(text);
        }
    }

    [DllImport("libc", EntryPoint = "posix_spawnp")]
    private static extern int Spawn(
        out int pid,
        [MarshalAs(UnmanagedType.LPUTF8Str)] string program,
        nint actions,
        nint attributes,
        ref nint arguments,
        ref nint variables);

    [DllImport("libc", EntryPoint = "posix_spawn_file_actions_init")]
    private static extern int InitializeActions(nint actions);

    [DllImport("libc", EntryPoint = "posix_spawn_file_actions_adddup2")]
    private static extern int AddDuplicate(nint actions, int descriptor, int number);

    [DllImport("libc", EntryPoint = "posix_spawn_file_actions_destroy")]
    private static extern int DestroyActions(nint actions);

    [DllImport("libc", EntryPoint = "posix_spawnattr_init")]
    private static extern int InitializeAttributes(nint attributes);

    [DllImport("libc", EntryPoint = "posix_spawnattr_setflags")]
    private static extern int SetFlags(nint attributes, short flags);

    [DllImport("libc", EntryPoint = "posix_spawnattr_setpgroup")]
    private static extern int SetProcessGroup(nint attributes, int group);

    [DllImport("libc", EntryPoint = "posix_spawnattr_setsigdefault")]
    private static extern int SetSignalDefaults(nint attributes, ref byte signals);

    [DllImport("libc", EntryPoint = "posix_spawnattr_setsigmask")]
    private static extern int SetMask(nint attributes, ref byte signals);

    [DllImport("libc", EntryPoint = "posix_spawnattr_destroy")]
    private static extern int DestroyAttributes(nint attributes);

    [DllImport("libc", EntryPoint = "waitpid", SetLastError = true)]
    private static extern int Wait(int pid, out int status, int options);

    [DllImport("libc", EntryPoint = "kill")]
    private static extern int SendSignal(int pid, int signal);
}
