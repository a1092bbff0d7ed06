namespace NbdKit.Tests.Testing;

/// <summary>
/// A file system made by mke2fs, with files of all kinds. Whoever asks for one is ignored, or fails, where there is no
/// mke2fs or debugfs.
/// </summary>
internal sealed class Ext2Image : IDisposable
{
    private readonly ScratchDirectory _folder = new();

    private Ext2Image(Ext2Tree tree) => Files = tree.Files;

    /// <summary>The image file.</summary>
    public string Path => _folder["image"];

    public int BlockSize { get; private set; }

    /// <summary>The content of the regular files, by path.</summary>
    public IReadOnlyDictionary<string, byte[]> Files { get; }

    /// <summary>Makes an image.</summary>
    /// <param name="tree">What it holds.</param>
    /// <param name="options">What mke2fs gets besides, separated by blanks.</param>
    /// <param name="size">The size of the image, as truncate takes it.</param>
    /// <param name="indexed">Whether e2fsck builds indexes of directories.</param>
    public static async Task<Ext2Image> MakeAsync(Ext2Tree tree, string options, string size, bool indexed = false)
    {
        Peer.Require("mke2fs", "debugfs", "e2fsck");
        var image = new Ext2Image(tree);
        await using (FileStream file = File.Create(image.Path))
        {
            file.SetLength(NbdParse.Size(size));
        }
        (await Peer.RunAsync("mke2fs", ["-q", "-F", .. options.Split(' '), "-d", tree.Root, image.Path])).Expect(0);
        byte[] log = new byte[4];
        await using (FileStream file = File.OpenRead(image.Path))
        {
            file.Position = 1024 + 0x18;
            await file.ReadExactlyAsync(log);
        }
        image.BlockSize = 1024 << log[0];
        if (indexed)
        {
            PeerResult result = await Peer.RunAsync("e2fsck", "-fyD", image.Path);
            Assert.That(result.Status, Is.LessThan(2), result.ToString());
        }
        return image;
    }

    /// <summary>Runs commands of debugfs that may change the image, and returns what they print.</summary>
    public async Task<string[]> DebugAsync(params string[] commands)
    {
        string script = _folder.Write("commands", System.Text.Encoding.UTF8.GetBytes(string.Join('\n', commands) + "\n"));
        string output = await Peer.OutputAsync("debugfs", "-w", "-f", script, Path);
        return [.. output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Where(line => !line.StartsWith("debugfs", StringComparison.Ordinal))];
    }

    /// <summary>The content of files as debugfs sees it.</summary>
    public async Task<IReadOnlyList<byte[]>> DumpAsync(params string[] paths)
    {
        await DebugAsync([.. paths.Select((path, i) => $"dump {path} {_folder["dump" + i]}")]);
        return [.. paths.Select((_, i) => File.ReadAllBytes(_folder["dump" + i]))];
    }

    /// <summary>Where the inode of a file begins in the image.</summary>
    public async Task<long> InodeOffsetAsync(string path)
    {
        string output = string.Join(' ', await DebugAsync($"imap {path}"));
        string[] words = output.Split([' ', ',', '\t'], StringSplitOptions.RemoveEmptyEntries);
        long block = long.Parse(words[Array.IndexOf(words, "located") + 3]);
        return (block * BlockSize) + Convert.ToInt64(words[^1], 16);
    }

    /// <summary>Fails the test unless the image is without a fault.</summary>
    public async Task CheckAsync() => (await Peer.RunAsync("e2fsck", "-fn", Path)).Expect(0);

    public void Dispose() => _folder.Dispose();
}
