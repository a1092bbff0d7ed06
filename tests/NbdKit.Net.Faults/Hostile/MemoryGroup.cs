using System.Globalization;

namespace NbdKit.Faults.Hostile;

/// <summary>A control group of Linux with a limit of memory, which this process is in until it is disposed of.</summary>
internal sealed class MemoryGroup : IDisposable
{
    private const string Root = "/sys/fs/cgroup/memory";

    private readonly string _before;
    private readonly string _folder;

    private MemoryGroup(string before, string folder)
    {
        _before = before;
        _folder = folder;
    }

    /// <summary>Makes a group and enters it; null, and the reason, where that is not possible.</summary>
    public static MemoryGroup? TryEnter(long bytes, out string reason)
    {
        reason = "";
        try
        {
            string line = File.ReadLines("/proc/self/cgroup").First(text => text.Contains(":memory:", StringComparison.Ordinal));
            var group = new MemoryGroup(
                Root + line[(line.LastIndexOf(':') + 1)..], $"{Root}/nbdkit-net-{System.Environment.ProcessId}");
            Directory.CreateDirectory(group._folder);
            File.WriteAllText($"{group._folder}/memory.limit_in_bytes", bytes.ToString(CultureInfo.InvariantCulture));
            Move(group._folder);
            return group;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or InvalidOperationException)
        {
            reason = e.Message;
            return null;
        }
    }

    public void Dispose()
    {
        Move(_before);
        Directory.Delete(_folder);
    }

    private static void Move(string folder)
        => File.WriteAllText($"{folder}/cgroup.procs", System.Environment.ProcessId.ToString(CultureInfo.InvariantCulture));
}
