using System.Runtime.InteropServices;
using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Report;

/// <summary>Where and with what was measured.</summary>
internal static class Machine
{
    /// <summary>One line: what a reader has to know of the machine.</summary>
    public static string Summary
        => $"{Environment.ProcessorCount} x {Processor()}, {Figures.Bytes(Memory())} of memory, kernel {Kernel()}; load average before: {Load}";

    /// <summary>All of it, as a list.</summary>
    public static string Describe(Settings settings, string measured)
    {
        IEnumerable<string> lines =
        [
            $"Date: {DateTime.UtcNow:yyyy-MM-dd HH:mm} UTC",
            $"Machine: {Summary}",
            $"System: {RuntimeInformation.OSDescription}, {RuntimeInformation.FrameworkDescription}, {RuntimeInformation.ProcessArchitecture}",
            $"NbdKit.Net: {Programs.FirstLine("git", "-C", Repository.Root, "describe", "--always", "--dirty") ?? "unknown version"}",
            $"Peers: {string.Join(", ", Peers())}",
            $"Measured: {measured}{(settings.IsShort ? " (short form: the figures mean nothing)" : "")}",
        ];
        return string.Concat(lines.Select(line => $"- {line}\n"));
    }

    private static IEnumerable<string> Peers()
    {
        foreach (string program in (string[])["nbdkit", "qemu-nbd", "nbdcopy"])
        {
            yield return Programs.FirstLine(program, "--version") ?? $"no {program}";
        }
    }

    private static string Processor()
    {
        const string Key = "model name";
        string? line = ReadLines("/proc/cpuinfo").FirstOrDefault(l => l.StartsWith(Key, StringComparison.Ordinal));
        return line is null ? "unknown processor" : line[(line.IndexOf(':', StringComparison.Ordinal) + 1)..].Trim();
    }

    private static long Memory() => GC.GetGCMemoryInfo().TotalAvailableMemoryBytes >> 30 << 30;

    private static string Kernel()
        => ReadLines("/proc/sys/kernel/osrelease").FirstOrDefault() ?? Environment.OSVersion.VersionString;

    // Of the time before the first measurement, which is a load itself.
    private static string Load { get; }
        = ReadLines("/proc/loadavg").FirstOrDefault()?.Split(' ')[0] ?? "unknown";

    private static string[] ReadLines(string path) => File.Exists(path) ? File.ReadAllLines(path) : [];
}
