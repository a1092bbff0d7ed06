namespace NbdKit.Tests.Testing;

/// <summary>A directory with files of all kinds, to make file systems of.</summary>
internal sealed class Ext2Tree : IDisposable
{
    private const int Seed = 20260901;

    private readonly ScratchDirectory _folder = new();
    private readonly Dictionary<string, byte[]> _files = [];

    /// <param name="many">How many files one of its directories holds; 0 for a tree that fits into 256 KiB.</param>
    /// <param name="sparse">The size of the sparse file, if there are many; most of it is a hole.</param>
    public Ext2Tree(int many, int sparse = 3_000_123)
    {
        Directory.CreateDirectory(Root + "/folder/sub");
        Add("/folder/sub/file", TestData.Random(5000, Seed));
        Add("/empty", []);
        Add("/tiny", TestData.Random(20, Seed));
        Add("/medium", TestData.Random(110, Seed));
        Add("/big", TestData.Random(many > 0 ? 200_001 : 20_001, Seed));
        File.CreateSymbolicLink(Root + "/fast", "folder/sub/file");
        File.CreateSymbolicLink(Root + "/slow", string.Concat(Enumerable.Repeat("folder/../", 9)) + "folder/sub/file");
        File.CreateSymbolicLink(Root + "/absolute", "/big");
        File.CreateSymbolicLink(Root + "/loop", "pool");
        File.CreateSymbolicLink(Root + "/pool", "loop");
        File.CreateSymbolicLink(Root + "/dangling", "nothing");
        File.CreateSymbolicLink(Root + "/folder/up", "../big");
        File.CreateSymbolicLink(Root + "/folder/sub/chain", "../../slow");
        File.CreateSymbolicLink(Root + "/folder/sub/top", "/folder");
        File.CreateSymbolicLink(Root + "/through", "folder/sub");
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
        Add("/sieve", sieve);
        byte[] holes = new byte[sparse];
        foreach (int at in new[] { 5_000, 200_000, 1_000_000, sparse - 30_000, sparse - 9_000 })
        {
            TestData.Random(9_000, at).CopyTo(holes, at);
        }
        Add("/sparse", holes);
        Directory.CreateDirectory(Root + "/folder/many");
        for (int i = 0; i < many; i++)
        {
            Add($"/folder/many/a name that is rather long, number {i}", TestData.Random(i % 20, i));
        }
    }

    /// <summary>The directory.</summary>
    public string Root => _folder.Path;

    /// <summary>The content of the regular files, by path.</summary>
    public IReadOnlyDictionary<string, byte[]> Files => _files;

    /// <summary>Other names of files: paths that go through symbolic links or dots.</summary>
    public static IReadOnlyDictionary<string, string> Aliases { get; } = new Dictionary<string, string>
    {
        ["/fast"] = "/folder/sub/file",
        ["/slow"] = "/folder/sub/file",
        ["/absolute"] = "/big",
        ["/folder/up"] = "/big",
        ["/folder/sub/chain"] = "/folder/sub/file",
        ["/folder/sub/top/../../big"] = "/big",
        ["/through/file"] = "/folder/sub/file",
        ["/through/../many/../sub/./file"] = "/folder/sub/file",
        ["//folder///sub/file"] = "/folder/sub/file",
        ["/../folder/../../big"] = "/big",
    };

    public void Dispose() => _folder.Dispose();

    private void Add(string path, byte[] content)
    {
        using FileStream file = File.Create(Root + path);
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
        _files.Add(path, content);
    }
}
