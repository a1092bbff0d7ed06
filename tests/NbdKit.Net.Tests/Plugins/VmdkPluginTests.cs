using System.Buffers.Binary;
using System.Text;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public class VmdkPluginTests
{
    private static NbdBackend Disk(byte[] data, NbdExportInfo? info = null) => NbdBackend.Compose(new ModelPlugin(data, info));

    private static NbdBackend Of(string descriptor, Func<string, NbdBackend?>? resolver = null)
        => NbdBackend.Compose(new VmdkPlugin
        {
            Chain = Disk(Encoding.UTF8.GetBytes("# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\n" + descriptor)),
            ExtentResolver = resolver,
        });

    private static string Refusal(NbdBackend chain)
    {
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        return e.Message;
    }

    [Test]
    public async Task Extents_are_resolved_by_name_and_put_in_a_row()
    {
        byte[] one = TestData.Random(4096, 1);
        byte[] two = TestData.Random(8192, 2);
        var asked = new List<string>();
        await using NbdBackend chain = Of(
            "RW 4 FLAT \"a file\" 2\r\nRW 6 ZERO\r\nRDONLY 16 FLAT \"two\"\n# the end\nunknown line\n",
            name =>
            {
                asked.Add(name);
                return Disk(name == "two" ? two : one);
            });
        await using NextContext disk = await chain.OpenAsync();
        byte[] expected = [.. one[1024..3072], .. new byte[3072], .. two];
        await ImageImages.CheckAsync(disk, expected, 3);
        Assert.That(asked, Is.EqualTo(new[] { "a file", "two" }));
    }

    [Test]
    public void Descriptors_that_cannot_be_served_are_refused()
    {
        Func<string, NbdBackend?> some = _ => Disk(new byte[4096]);
        Assert.That(Refusal(Of("RW 4 FLAT \"a\"\n")), Does.Contain("were not given"));
        Assert.That(Refusal(Of("RW 4 FLAT \"a\"\n", _ => null)), Does.Contain("'a', which is not there"));
        Assert.That(Refusal(Of("RW 9 FLAT \"a\"\n", some)), Does.Contain("its file is smaller"));
        Assert.That(Refusal(Of("RW 4 FLAT \"a\" 5\n", some)), Does.Contain("its file is smaller"));
        Assert.That(Refusal(Of("RW 4 SPARSE \"a\"\n", some)), Does.Contain("unknown kind"));
        Assert.That(Refusal(Of("RW 4 SESPARSE \"a\"\n", some)), Does.Contain("not read"));
        Assert.That(Refusal(Of("NOACCESS 4 FLAT \"a\"\n", some)), Does.Contain("may not be read"));
        Assert.That(Refusal(Of("", some)), Does.Contain("no extents"));
        Assert.That(Refusal(Of("parentCID=12345678\nRW 4 ZERO\n", some)), Does.Contain("only the changes"));
        foreach (string line in new[] { "RW x ZERO", "RW 0 ZERO", "RW -1 ZERO", "RW 4 FLAT", "RW 4 FLAT \"a", "RW 4 FLAT \"a\" x", "RW 99999999999999999999 ZERO" })
        {
            Assert.That(Refusal(Of(line + "\n", some)), Does.Contain("extent 1 of its descriptor cannot be read"), line);
        }
        Assert.That(Refusal(Of(string.Concat(Enumerable.Repeat("RW 18014398509481983 ZERO\n", 2)), some)), Does.Contain("2^63-1 bytes"));
        Assert.That(Refusal(Of(string.Concat(Enumerable.Repeat("RW 1 ZERO\n", 4097)), some)), Does.Contain("more than 4096 extents"));
    }

    /// <summary>A sparse image of 64 grains of 4 KiB, of which each fourth is not there.</summary>
    private static (byte[] Image, byte[] Content) Sparse()
    {
        byte[] content = TestData.Random(64 * 4096, 5);
        byte[] image = new byte[(8 * 512) + content.Length];
        "KDMV"u8.CopyTo(image);
        BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(4), 1);
        foreach ((int at, ulong value) in new[] { (12, 512UL), (20, 8UL), (44, 512UL), (56, 1UL) })
        {
            BinaryPrimitives.WriteUInt64LittleEndian(image.AsSpan(at), value);
        }
        BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(512), 2);
        for (int grain = 0; grain < 64; grain++)
        {
            if (grain % 4 == 3)
            {
                content.AsSpan(grain * 4096, 4096).Clear();
            }
            else
            {
                BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(1024 + (grain * 4)), (uint)(8 + (grain * 8)));
            }
        }
        content.CopyTo(image, 8 * 512);
        return (image, content);
    }

    [Test]
    public async Task Reads_of_what_is_not_compressed_allocate_nothing()
    {
        (byte[] image, byte[] content) = Sparse();
        NbdBackend memory = NbdBackend.Compose(new MemoryPlugin { Size = image.Length });
        await memory.StartAsync();
        await using (NextContext whole = await memory.OpenAsync())
        {
            await whole.WriteAsync(image, 0, RequestFlags.None, default);
        }
        await using NbdBackend chain = NbdBackend.Compose(new VmdkPlugin { Chain = memory });
        await using NextContext disk = await chain.OpenAsync();
        await ImageImages.CheckAsync(disk, content, 6);
        byte[] buffer = new byte[20_000];
        long before = 0;
        int completed = 0;
        for (int i = 0; i < 2000; i++)
        {
            before = i == 1000 ? GC.GetAllocatedBytesForCurrentThread() : before;
            ValueTask read = disk.ReadAsync(buffer.AsMemory(0, i % 2 == 0 ? 4096 : buffer.Length), i * 37, default);
            completed += read.IsCompletedSuccessfully ? 1 : 0;
            read.GetAwaiter().GetResult();
        }
        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.That((completed, allocated), Is.EqualTo((2000, 0L)));
        await memory.DisposeAsync();
    }

    [Test]
    public async Task Requests_of_layers_with_limits_are_kept()
    {
        (byte[] image, byte[] content) = Sparse();
        var plugin = new ModelPlugin(image, ModelPlugin.Everything with { BlockSize = new BlockSize(512, 4096, 8192) }) { Yields = true };
        await using NbdBackend chain = NbdBackend.Compose(new VmdkPlugin { Chain = NbdBackend.Compose(plugin) }, new BlockSizeFilter());
        await using NextContext disk = await chain.OpenAsync();
        await ImageImages.CheckAsync(disk, content, 7);
        Assert.That(plugin.Offence, Is.Null);
    }

    [Test]
    public async Task A_grain_outside_of_the_image_fails_the_requests_that_touch_it()
    {
        (byte[] image, byte[] content) = Sparse();
        BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(1024 + (5 * 4)), uint.MaxValue);
        await using NbdBackend chain = NbdBackend.Compose(new VmdkPlugin { Chain = Disk(image) });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(disk, 0, 5 * 4096), Is.EqualTo(content[..(5 * 4096)]));
        NbdException e = TestData.Failure(async () => await TestData.ReadAsync(disk, 5 * 4096, 1));
        Assert.That((e.Error, e.Message), Is.EqualTo((NbdError.IoError, "the VMDK image is damaged: the grain of offset 20480 is at 2199023255040, which is not inside the image")));
    }

    [Test]
    public void What_is_not_an_image_is_refused()
    {
        foreach ((byte[] start, string message) in new (byte[], string)[]
        {
            ([], "not a VMDK image"), (TestData.Random(5000), "not a VMDK image"), ([.. "COWD"u8, .. new byte[508]], "ESX"),
        })
        {
            Assert.That(Refusal(NbdBackend.Compose(new VmdkPlugin { Chain = Disk(start) })), Does.Contain(message));
        }
        NbdExportInfo blocks = ModelPlugin.Everything with { BlockSize = new BlockSize(4096, 4096) };
        Assert.That(Refusal(NbdBackend.Compose(new VmdkPlugin { Chain = Disk(new byte[4096], blocks) })), Does.Contain("blocksize filter"));
    }

    [Test]
    public async Task A_file_with_several_extents_is_opened_once()
    {
        byte[] data = TestData.Random(8 * 512, 9);
        var plugin = new TestPlugin(new TestExport { Data = data });
        int asked = 0;
        await using NbdBackend chain = Of(
            string.Concat(Enumerable.Range(0, 8).Select(i => $"RW 1 FLAT \"a\" {7 - i}\n")),
            _ =>
            {
                asked++;
                return NbdBackend.Compose(plugin);
            });
        await using (NextContext disk = await chain.OpenAsync())
        {
            byte[] expected = [.. Enumerable.Range(0, 8).SelectMany(i => data[((7 - i) * 512)..((8 - i) * 512)])];
            Assert.That(await TestData.ReadAsync(disk, 0, data.Length), Is.EqualTo(expected));
        }
        Assert.That((asked, plugin.Opened, plugin.Closed), Is.EqualTo((1, 1, 1)));
    }

    [Test]
    public void The_number_of_files_is_limited()
        => Assert.That(
            Refusal(Of(string.Concat(Enumerable.Range(0, 513).Select(i => $"RW 1 FLAT \"{i}\"\n")), _ => Disk(new byte[512]))),
            Does.Contain("more than 512 files"));
}
