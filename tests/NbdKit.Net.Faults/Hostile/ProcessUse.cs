using System.Diagnostics;
using System.Globalization;

namespace NbdKit.Faults.Hostile;

/// <summary>What a process uses of the machine (Linux).</summary>
internal static class ProcessUse
{
    /// <summary>The memory of this process that is in RAM, in bytes.</summary>
    public static long ResidentBytes
        => long.Parse(File.ReadAllText("/proc/self/statm").Split(' ')[1], CultureInfo.InvariantCulture)
            * System.Environment.SystemPageSize;

    /// <summary>The threads of this process.</summary>
    public static int Threads => Directory.GetDirectories("/proc/self/task").Length;

    /// <summary>The open descriptors of this process.</summary>
    public static int Descriptors => Directory.GetFileSystemEntries("/proc/self/fd").Length;

    /// <summary>The time that this process had a processor.</summary>
    public static TimeSpan Cpu => System.Environment.CpuUsage.TotalTime;

    /// <summary>The time that the calling thread had a processor.</summary>
    public static TimeSpan ThreadCpu
        => TimeSpan.FromTicks(long.Parse(File.ReadAllText("/proc/thread-self/schedstat").Split(' ')[0], CultureInfo.InvariantCulture) / 100);

    /// <summary>A second, or more where the machine is late.</summary>
    public static TimeSpan Patience => TimeSpan.FromSeconds(1) + MachineLag.Longest;

    /// <summary>What is reachable on the heap, in bytes.</summary>
    public static long HeapBytes()
    {
        for (int i = 0; i < 2; i++)
        {
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Forced, blocking: true, compacting: true);
            GC.WaitForPendingFinalizers();
        }
        return GC.GetTotalMemory(forceFullCollection: true);
    }

    /// <summary>Waits until something holds; fails when it takes longer than it may.</summary>
    public static async Task<TimeSpan> UntilAsync(Func<bool> condition, TimeSpan limit, Func<string> otherwise)
    {
        var watch = Stopwatch.StartNew();
        while (!condition())
        {
            if (watch.Elapsed > limit)
            {
                throw new TimeoutException(otherwise());
            }
            await Task.Delay(5);
        }
        return watch.Elapsed;
    }

    /// <summary>Skips the row unless the process may have so many descriptors.</summary>
    public static void RequireDescriptors(int count)
    {
        if (!OperatingSystem.IsLinux())
        {
            throw new FaultSkippedException("it reads /proc");
        }
        string line = File.ReadLines("/proc/self/limits").First(text => text.StartsWith("Max open files", StringComparison.Ordinal));
        string soft = line["Max open files".Length..].Split(' ', StringSplitOptions.RemoveEmptyEntries)[0];
        if (soft != "unlimited" && long.Parse(soft, CultureInfo.InvariantCulture) < count)
        {
            throw new FaultSkippedException($"it takes {count} descriptors, the limit is {soft}");
        }
    }
}
