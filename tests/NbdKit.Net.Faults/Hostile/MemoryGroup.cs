using System.Globalization;

namespace NbdKit.Faults.Hostile;

/// <summary>A control group of Linux with a limit of memory, which this process is in until it is disposed of.</summary>
internal sealed class MemoryGroup : IDisposable
{
    private const string Root = "/sys/fs/cgroup";

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
            (string parent, string before, string limit) = Find();
            var group = new MemoryGroup(before, $"{parent}/nbdkit-net-{System.Environment.ProcessId}");
            Directory.CreateDirectory(group._folder);
            try
            {
                File.WriteAllText($"{group._folder}/{limit}", bytes.ToString(CultureInfo.InvariantCulture));
                Move(group._folder);
                return group;
            }
            catch
            {
                Directory.Delete(group._folder);
                throw;
            }
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

    /// <summary>Where a group can be made, the one that this process is in, and the file for the limit.</summary>
    private static (string Parent, string Before, string Limit) Find()
    {
        // Each line is number:controllers:path. Memory is a hierarchy of its own (version 1), or part of the one for all (version 2).
        string[] lines = File.ReadAllLines("/proc/self/cgroup");
        if (PathOf(lines, ":memory:") is { } first)
        {
            return ($"{Root}/memory", $"{Root}/memory{first}", "memory.limit_in_bytes");
        }
        if (PathOf(lines, "0::") is not { } path || !File.Exists($"{Root}/cgroup.controllers"))
        {
            throw new InvalidOperationException("there are no control groups for memory");
        }
        // Beside the group that it is in: only what has no processes of its own can hand its memory on, and the root.
        string parent = Root + (path == "/" ? "" : path[..path.LastIndexOf('/')]);
        File.WriteAllText($"{parent}/cgroup.subtree_control", "+memory");
        return (parent, Root + path, "memory.max");
    }

    private static string? PathOf(string[] lines, string hierarchy)
        => lines.FirstOrDefault(line => line.Contains(hierarchy, StringComparison.Ordinal)) is { } line ? line[(line.LastIndexOf(':') + 1)..] : null;

    private static void Move(string folder)
        => File.WriteAllText($"{folder}/cgroup.procs", System.Environment.ProcessId.ToString(CultureInfo.InvariantCulture));
}
