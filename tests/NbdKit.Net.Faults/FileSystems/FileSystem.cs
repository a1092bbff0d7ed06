namespace NbdKit.Faults.FileSystems;

/// <summary>A file system of the kernel's, and the programs that make and check it. FILE stands for the disk in their arguments.</summary>
/// <param name="Name">What mount calls it.</param>
/// <param name="Make">Makes an empty one.</param>
/// <param name="Check">Ends with 0 if nothing is wrong, and changes nothing.</param>
/// <param name="Recover">
/// Plays back the journal and ends with 0 or 1, or null where mounting does that and nothing else may. It must not hide damage:
/// whatever it may correct by itself is what an interrupted file system leaves by design.
/// </param>
internal sealed record FileSystem(string Name, string[] Make, string[] Check, string[]? Recover = null)
{
    public static IReadOnlyList<FileSystem> All { get; } =
    [
        new("ext4", ["mkfs.ext4", "-q", "-F", "FILE"], ["e2fsck", "-f", "-n", "FILE"], ["e2fsck", "-p", "FILE"]),
        new("xfs", ["mkfs.xfs", "-q", "-f", "FILE"], ["xfs_repair", "-n", "-f", "FILE"]),
        new("btrfs", ["mkfs.btrfs", "-q", "-f", "FILE"], ["btrfs", "check", "FILE"]),
    ];

    /// <summary>Enough for each of them.</summary>
    public const long DiskSize = 384 << 20;

    /// <summary>Why it cannot be tested here, or null if it can.</summary>
    public string? Missing
        => new[] { Make[0], Check[0] }.FirstOrDefault(program => !Has(program)) is { } program
            ? $"{program} is not installed"
            : File.ReadAllLines("/proc/filesystems").Any(line => line.TrimStart() == Name) ? null : "the kernel does not have it";

    /// <summary>Whether a program is installed.</summary>
    public static bool Has(string program)
        => (System.Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Concat(["/usr/sbin", "/sbin"])
            .Any(folder => File.Exists(Path.Combine(folder, program)));
}
