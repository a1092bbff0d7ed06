using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>
/// Two ext4 file systems with a few hundred files: one as it was made, and the same one after files were removed and written.
/// Made when the first test asks for them, removed after the last.
/// </summary>
[SetUpFixture]
public sealed class FileSystemImages
{
    private const int Seed = 20260801;
    private const int FileCount = 300;

    private static readonly ScratchDirectory Folder = new();
    private static readonly Lazy<Task> Made = new(MakeAsync);

    /// <summary>The size of each image in bytes.</summary>
    public const long Size = 64 << 20;

    /// <summary>The file system as it was made. Not to be written.</summary>
    internal static string Before => Folder["before.img"];

    /// <summary>The file system some changes later. Not to be written.</summary>
    internal static string After => Folder["after.img"];

    /// <summary>Waits for the images, and ignores or fails the test if they cannot be made here.</summary>
    internal static async Task RequireAsync()
    {
        Peer.Require("mke2fs", "debugfs", "e2fsck");
        await Made.Value;
    }

    /// <summary>Fails the test unless an image is a file system without a fault.</summary>
    internal static async Task CheckAsync(string image) => (await Peer.RunAsync("e2fsck", "-fn", image)).Expect(0);

    /// <summary>Copies an image, holes included.</summary>
    internal static async Task<string> CopyAsync(string image, string copy)
    {
        (await Peer.RunAsync("cp", "--sparse=always", image, copy)).Expect(0);
        return copy;
    }

    [OneTimeTearDown]
    public void Remove() => Folder.Dispose();

    private static async Task MakeAsync()
    {
        var random = new Random(Seed);
        string root = Directory.CreateDirectory(Folder["root"]).FullName;
        for (int i = 0; i < FileCount; i++)
        {
            string folder = Directory.CreateDirectory(Path.Combine(root, $"folder{i % 17}")).FullName;
            byte[] content = new byte[random.Next(1, 200_000)];
            random.NextBytes(content);
            await using FileStream file = File.Create(Path.Combine(folder, $"file{i}"));
            // Every fifth file has a hole before its content, and every third one after it.
            file.Position = i % 5 == 0 ? random.Next(1, 2_000_000) : 0;
            await file.WriteAsync(content);
            file.SetLength(file.Position + (i % 3 == 0 ? random.Next(1, 1_000_000) : 0));
        }
        (await Peer.RunAsync("truncate", "-s", $"{Size}", Before)).Expect(0);
        (await Peer.RunAsync("mke2fs", "-q", "-F", "-t", "ext4", "-d", root, Before)).Expect(0);
        Directory.Delete(root, recursive: true);

        await CopyAsync(Before, After);
        await File.WriteAllBytesAsync(Folder["new"], TestData.Random(5_000_000, Seed));
        IEnumerable<string> removals = Enumerable.Range(0, FileCount).Where(i => i % 4 == 0)
            .Select(i => $"rm /folder{i % 17}/file{i}");
        await File.WriteAllLinesAsync(Folder["commands"], [.. removals, $"write {Folder["new"]} new", "mkdir /empty"]);
        (await Peer.RunAsync("debugfs", "-w", "-f", Folder["commands"], After)).Expect(0);
        await CheckAsync(Before);
        await CheckAsync(After);
    }
}
