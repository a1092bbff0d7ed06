namespace NbdKit.Tests.Testing;

/// <summary>
/// A file system made by mke2fs, with files of all kinds. Whoever asks for one is ignored, or fails, where there is no
/// mke2fs or debugfs.
/// </summary>
internal sealed class Ext2Image : IDisposable
{
    private const int Seed = 20260901;

    private readonly ScratchDirectory _folder = new();

    private Ext2Image()
    {
    }

    /// <summary>The image file.</summary>
    public string Path => _folder["image"];

    public int BlockSize { get; private set; }

    /// <summary>The content of the regular files, by path.</summary>
    public Dictionary<string, byte[]> Files { get; } = [];

    /// <summary>Other names of files: paths that go through symbolic links or dots.</summary>
    public static IReadOnlyDictionary<string, string> Aliases { get; } = new Dictionary<string, string>
    {
        ["/fast"] = "/folder/sub/file",
        ["/slow"] = "/folder/sub/file",
        ["/absolute"] = "/big",
        ["/folder/up"] = "/big",
        ["/folder/sub/chain"] = "/folder/sub/file",
        ["/through/file"] = "/folder/sub/file",
        ["/through/../many/../sub/./file"] = "/folder/sub/file",
        ["//folder///sub/file"] = "/folder/sub/file",
        ["/../folder/../../big"] = "/big",
    };

    /// <summary>Makes an image that holds all kinds of files.</summary>
    /// <param name="options">What mke2fs gets besides, separated by blanks.</param>
    /// <param name="megabytes">The size of the image.</param>
    /// <param name="commands">What debugfs does to it afterwards.</param>
    /// <param name="indexed">Whether e2fsck builds indexes of directories.</param>
    /// <param name="sparse">The size of the sparse file; its second half is a hole but for the end.</param>
    public static async Task<Ext2Image> MakeAsync(
        string options, int megabytes = 16, string[]? commands = null, bool indexed = false, int sparse = 3_000_123)
    {
        Peer.Require("mke2fs", "debugfs", "e2fsck");
        var image = new Ext2Image();
        image.WriteTree(many: 300, sparse);
        await image.FormatAsync(options, $"{megabytes}M");
        if (commands is not null)
        {
            await image.DebugAsync(commands);
        }
        if (indexed)
        {
            PeerResult result = await Peer.RunAsync("e2fsck", "-fyD", image.Path);
            Assert.That(result.Status, Is.LessThan(2), result.ToString());
        }
        return image;
    }

    /// <summary>Makes a small image with few files.</summary>
    public static async Task<Ext2Image> MakeSmallAsync(string options, string size = "256K")
    {
        Peer.Require("mke2fs", "debugfs", "e2fsck");
        var image = new Ext2Image();
        image.WriteTree(many: 0, sparse: 0);
        await image.FormatAsync(options + " -N 32", size);
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

    private async Task FormatAsync(string options, string size)
    {
        (await Peer.RunAsync("truncate", "-s", size, Path)).Expect(0);
        (await Peer.RunAsync(
            "mke2fs", ["-q", "-F", .. options.Split(' '), "-d", _folder["root"], Path])).Expect(0);
        byte[] superblock = new byte[4];
        await using FileStream file = File.OpenRead(Path);
        file.Position = 1024 + 0x18;
        await file.ReadExactlyAsync(superblock);
        BlockSize = 1024 << superblock[0];
    }

    private void WriteTree(int many, int sparse)
    {
        string root = Directory.CreateDirectory(_folder["root"]).FullName;
        Directory.CreateDirectory(root + "/folder/sub");
        Add(root, "/folder/sub/file", TestData.Random(5000, Seed));
        Add(root, "/empty", []);
        Add(root, "/tiny", TestData.Random(20, Seed));
        Add(root, "/medium", TestData.Random(110, Seed));
        Add(root, "/big", TestData.Random(many > 0 ? 200_001 : 20_001, Seed));
        File.CreateSymbolicLink(root + "/fast", "folder/sub/file");
        File.CreateSymbolicLink(root + "/slow", string.Concat(Enumerable.Repeat("folder/../", 9)) + "folder/sub/file");
        File.CreateSymbolicLink(root + "/absolute", "/big");
        File.CreateSymbolicLink(root + "/loop", "pool");
        File.CreateSymbolicLink(root + "/pool", "loop");
        File.CreateSymbolicLink(root + "/dangling", "nothing");
        File.CreateSymbolicLink(root + "/folder/up", "../big");
        File.CreateSymbolicLink(root + "/folder/sub/chain", "../../slow");
        File.CreateSymbolicLink(root + "/through", "folder/sub");
        if (many == 0)
        {
            return;
        }
        // One block in eight KiB: an extent each, in a tree of up to three levels.
        byte[] sieve = new byte[(399 * 8192) + 700];
        for (int i = 0; i < sieve.Length; i += 8192)
        {
            TestData.Random(700, i + 1).CopyTo(sieve, i);
        }
        Add(root, "/sieve", sieve);
        byte[] holes = new byte[sparse];
        foreach (int at in new[] { 5_000, 200_000, 1_000_000, sparse - 30_000, sparse - 9_000 })
        {
            TestData.Random(9_000, at).CopyTo(holes, at);
        }
        Add(root, "/sparse", holes);
        Directory.CreateDirectory(root + "/folder/many");
        for (int i = 0; i < many; i++)
        {
            Add(root, $"/folder/many/a name that is rather long, number {i}", TestData.Random(i % 20, i));
        }
    }

    private void Add(string root, string path, byte[] content)
    {
        using FileStream file = File.Create(root + path);
        for (int at = 0; at < content.Length; at += 4096)
        {
            ReadOnlySpan<byte> part = content.AsSpan(at, Math.Min(4096, content.Length - at));
            if (part.ContainsAnyExcept((byte)0))
            {
                file.Position = at;
                file.Write(part);
            }
        }
        file.SetLength(content.Length);
        Files.Add(path, content);
    }
}
