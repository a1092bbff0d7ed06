using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public sealed class FilePluginDirectoryTests
{
    private ScratchDirectory _scratch = null!;
    private string _exports = null!;

    [SetUp]
    public void SetUp()
    {
        _scratch = new ScratchDirectory();
        _exports = Directory.CreateDirectory(_scratch["exports"]).FullName;
        _scratch.Write("secret", [1, 2, 3]);
        _scratch.Write("exports/b", new byte[600]);
        _scratch.Write("exports/a b.img", new byte[700]);
        _scratch.Write("exports/ä", new byte[800]);
        _scratch.Write("exports/..c", new byte[900]);
        Directory.CreateDirectory(_scratch["exports/sub"]);
        _scratch.Write("exports/sub/d", [1]);
        File.CreateSymbolicLink(_scratch["exports/inside"], "b");
        File.CreateSymbolicLink(_scratch["exports/outside"], "../secret");
        File.CreateSymbolicLink(_scratch["exports/dangling"], "nothing");
    }

    [TearDown]
    public void TearDown() => _scratch.Dispose();

    [Test]
    public async Task Files_are_listed_in_order_and_nothing_else_is()
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Directory = _exports });
        await chain.StartAsync();
        Assert.That(await ListAsync(chain), Is.EqualTo(new[] { "..c", "a b.img", "b", "ä" }));
    }

    [Test]
    public async Task Each_file_is_an_export_of_its_own()
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Directory = _exports });
        await chain.StartAsync();
        foreach (string name in await ListAsync(chain))
        {
            await using NextContext disk = await chain.OpenAsync(name);
            Assert.That(disk.Info.Size, Is.EqualTo(new FileInfo(Path.Combine(_exports, name)).Length), name);
        }
        await using NextContext b = await chain.OpenAsync("b");
        await b.WriteAsync(new byte[] { 7 }, 599, RequestFlags.None, default);
        Assert.That(File.ReadAllBytes(Path.Combine(_exports, "b"))[599], Is.EqualTo(7));
    }

    [Test]
    public async Task There_is_no_default_export()
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Directory = _exports });
        Assert.That(await chain.DefaultExportAsync(false, null, default), Is.Null);
        Assert.That(await ErrorAsync(chain, ""), Is.EqualTo(NbdError.InvalidArgument));
    }

    [TestCase(".")]
    [TestCase("..")]
    [TestCase("../secret")]
    [TestCase("../exports/b")]
    [TestCase("./b")]
    [TestCase("sub/d")]
    [TestCase("sub/../b")]
    [TestCase("b/")]
    [TestCase("/etc/passwd")]
    [TestCase("\\b")]
    [TestCase("..\\secret")]
    [TestCase("b\0")]
    [TestCase("sub")]
    [TestCase("nothing")]
    [TestCase("B ")]
    public async Task A_name_that_is_no_file_of_the_directory_is_refused(string name)
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Directory = _exports });
        Assert.That(await ErrorAsync(chain, name), Is.EqualTo(NbdError.InvalidArgument));
    }

    [TestCase("inside")]
    [TestCase("outside")]
    [TestCase("dangling")]
    public async Task A_link_is_refused_wherever_it_leads(string name)
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Directory = _exports });
        Assert.That(await ErrorAsync(chain, name), Is.EqualTo(NbdError.PermissionDenied));
    }

    [Test]
    public async Task Links_are_followed_if_that_is_wanted()
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Directory = _exports, FollowLinks = true });
        await using NextContext inside = await chain.OpenAsync("inside");
        await using NextContext outside = await chain.OpenAsync("outside");
        Assert.That((inside.Info.Size, outside.Info.Size), Is.EqualTo((600L, 3L)));
        Assert.That(await ErrorAsync(chain, "dangling"), Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(await ListAsync(chain), Is.EqualTo(new[] { "..c", "a b.img", "b", "inside", "outside", "ä" }));
    }

    [Test]
    [Platform("Linux")]
    public async Task A_fifo_is_neither_listed_nor_waited_for([Values] bool readOnly)
    {
        ScratchDirectory.Run("mkfifo", Path.Combine(_exports, "fifo"));
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Directory = _exports, FollowLinks = true });
        Assert.That(await ErrorAsync(chain, "fifo", readOnly), Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(await ListAsync(chain), Has.No.Member("fifo"));
    }

    [Test]
    public async Task A_directory_that_disappears_fails_the_list_and_the_open()
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Directory = _exports });
        await chain.StartAsync();
        Directory.Delete(_exports, recursive: true);
        NbdException failure = Assert.ThrowsAsync<NbdException>(async () => await ListAsync(chain))!;
        Assert.That(failure.Message, Does.Not.Contain(_exports));
        Assert.That(await ErrorAsync(chain, "b"), Is.EqualTo(NbdError.InvalidArgument));
    }

    [TestCase("disk.img", true, true)]
    [TestCase(".hidden", true, true)]
    [TestCase("...", true, false)]
    [TestCase("a:b", true, false)]
    [TestCase("b::$DATA", true, false)]
    [TestCase("C:", true, false)]
    [TestCase("name.", true, false)]
    [TestCase("name ", true, false)]
    [TestCase("tab\t", true, false)]
    [TestCase("CON", true, false)]
    [TestCase("nul", true, false)]
    [TestCase("aux.img", true, false)]
    [TestCase("PRN .x", true, false)]
    [TestCase("com1", true, false)]
    [TestCase("LPT9.txt", true, false)]
    [TestCase("COM\u00b9", true, false)]
    [TestCase("conin$", true, false)]
    [TestCase("com10", true, true)]
    [TestCase("console", true, true)]
    [TestCase("a\\b", true, false)]
    [TestCase("a/b", true, false)]
    [TestCase("wild*", true, false)]
    [TestCase("a:b", false, true)]
    [TestCase("CON", false, true)]
    [TestCase("name.", false, true)]
    [TestCase("a\\b", false, false)]
    [TestCase("a/b", false, false)]
    [TestCase("..", false, false)]
    [TestCase("", false, false)]
    public void A_plain_name_is_one_segment_and_no_device(string name, bool windows, bool isPlain)
        => Assert.That(FilePlugin.IsPlainName(name, windows), Is.EqualTo(isPlain));

    private static async Task<string[]> ListAsync(NbdBackend chain)
    {
        var exports = new ExportList();
        await chain.ListExportsAsync(exports, readOnly: false, null, default);
        return [.. exports.Select(e => e.Name)];
    }

    private static async Task<NbdError> ErrorAsync(NbdBackend chain, string name, bool readOnly = false)
    {
        NbdException? failure = null;
        try
        {
            await using NextContext disk = await chain.OpenAsync(name, readOnly);
        }
        catch (NbdException e)
        {
            failure = e;
        }
        Assert.That(failure, Is.Not.Null, $"'{name}' was opened");
        return failure!.Error;
    }
}
