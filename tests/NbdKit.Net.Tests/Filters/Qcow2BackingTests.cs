using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using static NbdKit.Tests.Testing.Qcow2Layout;

namespace NbdKit.Tests.Filters;

/// <summary>Files that an image names: none is opened unless the host says so.</summary>
public sealed class Qcow2BackingTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    /// <summary>An image whose every other cluster comes from a backing file.</summary>
    private static byte[] Overlay(byte[] content, string name, string? format)
    {
        var layout = new Qcow2Layout(content.Length);
        byte[] image = WithBacking(layout.Image(content), name, format);
        for (int i = 1; i < layout.Clusters; i += 2)
        {
            U64(image, layout.Entry(i), 0);
        }
        return image;
    }

    private static byte[] Expected(byte[] top, byte[] below)
    {
        byte[] expected = [.. top];
        for (int i = 512; i < top.Length; i += 1024)
        {
            int end = Math.Min(i + 512, top.Length);
            expected.AsSpan(i..end).Clear();
            if (i < below.Length)
            {
                below.AsSpan(i..Math.Min(end, below.Length)).CopyTo(expected.AsSpan(i));
            }
        }
        return expected;
    }

    private static NbdBackend Chain(byte[] image, Func<string, string?, NbdBackend?>? open = null, string? directory = null)
        => NbdBackend.Compose(new DataPlugin { Data = image }, new Qcow2DecFilter { OpenFile = open, BackingDirectory = directory });

    private static NbdBackend Disk(byte[] data) => NbdBackend.Compose(new DataPlugin { Data = data });

    private static string Refusal(NbdBackend chain)
    {
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument), e.Message);
        return e.Message;
    }

    [Test, Property("Threat", "CVE-2024-4467")]
    public async Task By_default_no_file_is_opened()
    {
        await using NbdBackend chain = Chain(Overlay(new byte[2048], "/etc/passwd", "raw"));
        Assert.That(Refusal(chain), Does.Contain("needs the backing file '/etc/passwd', and nothing allows other files"));
    }

    [Test, Property("Threat", "CVE-2024-4467")]
    public async Task A_host_may_refuse_a_file()
    {
        await using NbdBackend chain = Chain(Overlay(new byte[2048], "x", "raw"), (_, _) => null);
        Assert.That(Refusal(chain), Does.Contain("needs the backing file 'x', which is not allowed"));
    }

    [TestCase(5000, "raw")]
    [TestCase(1000, "raw")]
    [TestCase(1600, "raw")]
    [TestCase(0, "raw")]
    [TestCase(5000, null)]
    [TestCase(5000, "qcow2")]
    [TestCase(1600, "qcow2")]
    [TestCase(9999, "qcow2")]
    public async Task What_an_image_does_not_have_comes_from_its_backing_file(int size, string? format)
    {
        (byte[] top, byte[] below) = (TestData.Random(5000, 1), TestData.Random(size, 2));
        (string, string?)? asked = null;
        await using NbdBackend chain = Chain(Overlay(top, "base", format), (name, wanted) =>
        {
            asked = (name, wanted);
            return Disk(format == "qcow2" ? Image(below) : below);
        });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(asked, Is.EqualTo(("base", format)));
        byte[] expected = Expected(top, below);
        Assert.That(await TestData.ReadAsync(disk, 0, 5000), Is.EqualTo(expected));
        ExtentList extents = await disk.ExtentsFullAsync(0, 5000, ExtentList.BaseAllocation, None);
        int fromBelow = Enumerable.Range(0, Math.Min(5000, size)).Count(i => i / 512 % 2 == 1);
        int fromTop = Enumerable.Range(0, 5000).Count(i => i / 512 % 2 == 0);
        Assert.That(extents.Where(e => e.Status != 0).Sum(e => e.Length), Is.EqualTo(5000 - fromTop - fromBelow));
        ExtentList depths = await disk.ExtentsFullAsync(0, 5000, ExtentList.AllocationDepth, None);
        Assert.That(depths[0], Is.EqualTo(new Extent(0, 512, (ExtentStatus)1)));
        Assert.That(depths.Where(e => (int)e.Status == 1).Sum(e => e.Length), Is.EqualTo(fromTop));
        Assert.That(depths.Where(e => (int)e.Status == 2).Sum(e => e.Length), Is.EqualTo(fromBelow));
    }

    [Test]
    public async Task Names_are_relative_to_the_image_that_has_them_and_all_is_closed_at_the_end()
    {
        var names = new List<string>();
        var plugins = new List<TestPlugin>();
        await using NbdBackend chain = Chain(Overlay(new byte[2048], "a/one", "qcow2"), (name, _) =>
        {
            names.Add(name);
            byte[] data = names.Count switch
            {
                1 => Overlay(new byte[2048], "two", "qcow2"),
                2 => Overlay(new byte[2048], "/b/three", "qcow2"),
                3 => Overlay(new byte[2048], "four", "qcow2"),
                4 => Overlay(new byte[2048], "nbd://host/five", "raw"),
                _ => TestData.Random(2048, 5),
            };
            var plugin = new TestPlugin(new TestExport { Data = data });
            plugins.Add(plugin);
            return NbdBackend.Compose(plugin);
        });
        await using (NextContext disk = await chain.OpenAsync())
        {
            Assert.That(names, Is.EqualTo(new[] { "a/one", "a/two", "/b/three", "/b/four", "nbd://host/five" }));
            Assert.That((await TestData.ReadAsync(disk, 512, 512)), Is.EqualTo(TestData.Random(2048, 5)[512..1024]));
            ExtentList extents = await disk.ExtentsFullAsync(0, 2048, ExtentList.AllocationDepth, None);
            Assert.That(extents.Select(e => (int)e.Status), Is.EqualTo(new[] { 1, 6, 1, 6 }));
        }
        Assert.That(plugins.Select(p => (p.Opened, p.Closed)), Is.All.EqualTo((1, 1)));
    }

    [Test]
    public async Task What_was_opened_is_closed_if_a_file_further_down_cannot_be_opened()
    {
        var plugins = new List<TestPlugin>();
        await using NbdBackend chain = Chain(Overlay(new byte[2048], "one", "qcow2"), (name, _) =>
        {
            var plugin = new TestPlugin(new TestExport { Data = name == "one" ? Overlay(new byte[2048], "two", "qcow2") : new byte[1000] });
            plugins.Add(plugin);
            return NbdBackend.Compose(plugin);
        });
        Assert.That(Refusal(chain), Is.EqualTo("backing file 'one': backing file 'two': this is not a qcow2 image: its magic number is missing"));
        Assert.That(plugins.Select(p => (p.Opened, p.Closed)), Is.EqualTo(new[] { (1, 1), (1, 1) }));
    }

    [Test]
    public async Task What_a_layer_says_of_the_host_is_not_for_clients()
    {
        await using NbdBackend chain = Chain(
            Overlay(new byte[2048], "one", "raw"), (_, _) => NbdBackend.Compose(new FilePlugin { Path = "/nonexistent/secret" }));
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That(e.Message, Is.EqualTo("the backing file 'one' of the qcow2 image cannot be opened"));
        Assert.That(e.InnerException!.Message, Does.Contain("secret"));
    }

    [Test]
    public async Task A_cycle_is_refused()
    {
        int count = 0;
        await using NbdBackend chain = Chain(
            Overlay(new byte[2048], "a", "qcow2"), (name, _) =>
            {
                count++;
                return Disk(Overlay(new byte[2048], name == "a" ? "b" : "a", "qcow2"));
            });
        Assert.That(Refusal(chain), Does.EndWith("the backing file 'a' is its own backing file: a -> b -> a"));
        Assert.That(count, Is.EqualTo(2));
    }

    [Test]
    public async Task The_number_of_levels_is_limited()
    {
        int count = 0;
        await using NbdBackend chain = Chain(
            Overlay(new byte[2048], "0", "qcow2"), (_, _) => Disk(Overlay(new byte[2048], $"{++count}", "qcow2")));
        Assert.That(Refusal(chain), Does.EndWith("the backing files are more than 64 levels deep"));
        Assert.That(count, Is.EqualTo(63));
    }

    [Test]
    public async Task A_chain_of_many_images_is_read()
    {
        byte[] below = TestData.Random(2048, 8);
        int count = 0;
        await using NbdBackend chain = Chain(
            Overlay(new byte[2048], "0", "qcow2"),
            (_, format) => Disk(format == "raw" ? below : Overlay(new byte[2048], $"{++count}", count == 62 ? "raw" : "qcow2")));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(disk, 0, 2048), Is.EqualTo(Expected(new byte[2048], below)));
    }

    [TestCase("raw", "one", null)]
    [TestCase("raw", "sub/../one", null)]
    [TestCase("raw", "file:one", null)]
    [TestCase("raw", "../one", "is not in the directory of backing files")]
    [TestCase("raw", "sub/../../x/one", "is not in the directory of backing files")]
    [TestCase("raw", "..", "is not in the directory of backing files")]
    [TestCase("raw", ".", "is not in the directory of backing files")]
    [TestCase("raw", "/etc/passwd", "is not in the directory of backing files")]
    [TestCase("raw", "nbd://localhost/", "is not in the directory of backing files")]
    [TestCase("raw", "json:{\"file\":{}}", "is not in the directory of backing files")]
    [TestCase("raw", "file:/etc/passwd", "is not in the directory of backing files")]
    [TestCase(null, "one", "names the file 'one' without a format")]
    [TestCase("vmdk", "one", "names the file 'one' of the format 'vmdk'")]
    public async Task Files_are_opened_from_one_directory_only(string? format, string name, string? refusal)
    {
        using var folder = new ScratchDirectory();
        byte[] below = TestData.Random(5000, 2);
        folder.Write("one", below);
        await using NbdBackend chain = Chain(Overlay(new byte[5000], name, format), directory: folder.Path);
        if (refusal is not null)
        {
            Assert.That(Refusal(chain), Does.Contain(refusal));
            return;
        }
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(disk, 0, 5000), Is.EqualTo(Expected(new byte[5000], below)));
    }

    [Test]
    public async Task A_directory_whose_name_only_begins_alike_is_another_one()
    {
        using var folder = new ScratchDirectory();
        Directory.CreateDirectory(folder["a"]);
        Directory.CreateDirectory(folder["ab"]);
        folder.Write("ab/one", new byte[1000]);
        await using NbdBackend chain = Chain(Overlay(new byte[2048], "../ab/one", "raw"), directory: folder["a"]);
        Assert.That(Refusal(chain), Does.Contain("is not in the directory of backing files"));
    }

    [Test]
    public async Task Clusters_may_be_in_a_file_that_the_image_names()
    {
        byte[] content = TestData.Random(5000, 6);
        var layout = new Qcow2Layout(content.Length);
        byte[] image = layout.Image(content);
        U64(image, 72, 4);
        Extension(image, HeaderLength, 0x44415441, "data"u8.ToArray());
        for (int i = 0; i < layout.Clusters; i++)
        {
            // The first one is at 0, which is a place here.
            U64(image, layout.Entry(i), (i * 512L) | long.MinValue);
        }
        U64(image, layout.Entry(2), 0);
        await using (NbdBackend refused = Chain(image))
        {
            Assert.That(Refusal(refused), Does.Contain("needs the external data file 'data', and nothing allows other files"));
        }
        await using NbdBackend chain = Chain(image, (name, format) => (name, format) == ("data", "raw") ? Disk(content) : null);
        await using NextContext disk = await chain.OpenAsync();
        byte[] expected = [.. content];
        expected.AsSpan(1024, 512).Clear();
        Assert.That(await TestData.ReadAsync(disk, 0, 5000), Is.EqualTo(expected));

        U64(image, layout.Entry(3), 1L << 62);
        await using NbdBackend broken = Chain(image, (_, _) => Disk(content));
        await using NextContext half = await broken.OpenAsync();
        Assert.That(
            TestData.Failure(() => TestData.ReadAsync(half, 1536, 1)).Message,
            Does.Contain("a compressed cluster, although it has an external data file"));
    }

    [Test]
    public async Task A_data_file_without_a_name_is_refused()
    {
        byte[] image = Image(new byte[512]);
        U64(image, 72, 4);
        await using NbdBackend chain = Chain(image, (_, _) => Disk([]));
        Assert.That(Refusal(chain), Does.Contain("an external file, which it does not name"));
    }

    [TestCase("link", "which is not in the directory of backing files")]
    [TestCase("out/one", "which is not in the directory of backing files")]
    [TestCase("sub/../link", "which is not in the directory of backing files")]
    [TestCase("sub/one", null)]
    [Platform("Linux")]
    public async Task A_link_does_not_lead_out_of_the_directory(string name, string? refusal)
    {
        using var folder = new ScratchDirectory();
        Directory.CreateDirectory(folder["root/sub"]);
        Directory.CreateDirectory(folder["elsewhere"]);
        string secret = folder.Write("elsewhere/one", new byte[5000]);
        folder.Write("root/sub/one", new byte[5000]);
        File.CreateSymbolicLink(folder["root/link"], secret);
        Directory.CreateSymbolicLink(folder["root/out"], folder["elsewhere"]);
        // The directory itself is the host's choice.
        Directory.CreateSymbolicLink(folder["way"], folder["root"]);
        await using NbdBackend chain = Chain(Overlay(new byte[5000], name, "raw"), directory: folder["way"]);
        if (refusal is not null)
        {
            Assert.That(Refusal(chain), Does.Contain(refusal));
            return;
        }
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(5000));
    }

    [Test]
    public async Task One_question_takes_no_more_steps_in_many_images_than_in_one()
    {
        const int Size = 8192 * 512;
        var layout = new Qcow2Layout(Size);
        byte[] below = layout.Image(new byte[Size]);
        byte[] top = WithBacking(layout.Image(new byte[Size]), "base", "qcow2");
        for (int i = 0; i < layout.Clusters; i++)
        {
            U64(top, layout.Entry(i), 0);
            if (i % 2 == 1)
            {
                U64(below, layout.Entry(i), 1);
            }
        }
        await using NbdBackend chain = Chain(top, (_, _) => Disk(below));
        await using NextContext disk = await chain.OpenAsync();
        foreach (string context in new[] { ExtentList.BaseAllocation, ExtentList.AllocationDepth })
        {
            var extents = new ExtentList(0, Size, context);
            await disk.ExtentsAsync(0, Size, RequestFlags.None, extents, None);
            Assert.That(extents.Covered, Is.InRange(512, 1024 * 512));
        }
        ExtentList all = await disk.ExtentsFullAsync(0, Size, ExtentList.BaseAllocation, None);
        Assert.That((all.Count, all.Covered), Is.EqualTo((8192, Size)));
    }

    [Test]
    [Platform("Linux")]
    public async Task A_link_that_is_put_on_the_way_after_the_check_is_noticed([Values] bool isFolder)
    {
        using var folder = new ScratchDirectory();
        Directory.CreateDirectory(folder["images/sub"]);
        Directory.CreateDirectory(folder["secret"]);
        folder.Write("images/sub/file", new byte[512]);
        folder.Write("secret/file", new byte[512]);
        // The directory itself may be reached over a link.
        Directory.CreateSymbolicLink(folder["link"], folder["images"]);
        await using (NbdBackend right = NbdKit.Filters.Qcow2.BackingFolder.Open(folder["link"], "sub/file", "raw"))
        {
            await using NextContext disk = await right.OpenAsync();
            Assert.That(disk.Info.Size, Is.EqualTo(512));
        }
        await using NbdBackend chain = NbdKit.Filters.Qcow2.BackingFolder.Open(folder["link"], "sub/file", "raw");
        if (isFolder)
        {
            Directory.Move(folder["images/sub"], folder["images/was"]);
            Directory.CreateSymbolicLink(folder["images/sub"], folder["secret"]);
        }
        else
        {
            File.Delete(folder["images/sub/file"]);
            File.CreateSymbolicLink(folder["images/sub/file"], folder["secret/file"]);
        }
        TestData.Failure(async () => await chain.OpenAsync());
    }
}
