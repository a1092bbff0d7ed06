using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public sealed class PowercutPluginTests
{
    private const int Size = 8192;

    private static byte[] Fill(byte value, int length) => [.. Enumerable.Repeat(value, length)];

    private static ValueTask WriteAsync(NextContext disk, byte value, long offset, int length, bool fua = false)
        => disk.WriteAsync(Fill(value, length), offset, fua ? RequestFlags.Fua : RequestFlags.None, default);

    private static async Task<byte[]> ContentAsync(PowercutImage image)
    {
        byte[] content = new byte[image.Size];
        await image.ReadAsync(content, 0);
        return content;
    }

    [Test]
    public async Task Reads_see_what_is_held_back_and_a_flush_brings_it_to_the_chain()
    {
        var stable = new ModelPlugin(Fill(1, Size));
        await using NbdBackend chain = NbdBackend.Compose(new PowercutPlugin { Chain = NbdBackend.Compose(stable) });
        await using NextContext one = await chain.OpenAsync();
        await using NextContext two = await chain.OpenAsync();
        await WriteAsync(one, 2, 100, 1000);
        await one.ZeroAsync(200, 100, RequestFlags.None, default);
        await one.TrimAsync(400, 100, RequestFlags.None, default);
        await WriteAsync(two, 3, 250, 200);

        byte[] expected = Fill(1, Size);
        expected.AsSpan(100, 1000).Fill(2);
        expected.AsSpan(200, 100).Clear();
        expected.AsSpan(400, 100).Clear();
        expected.AsSpan(250, 200).Fill(3);
        Assert.That(await TestData.ReadAsync(two, 0, Size), Is.EqualTo(expected));
        Assert.That(await TestData.ReadAsync(two, 260, 100), Is.EqualTo(Fill(3, 100)));
        Assert.That(stable.Data, Is.EqualTo(Fill(1, Size)));

        await two.FlushAsync(default);
        Assert.That(stable.Stable, Is.EqualTo(expected));
        Assert.That(await TestData.ReadAsync(one, 0, Size), Is.EqualTo(expected));
        Assert.That(stable.Offence, Is.Null);
    }

    [Test]
    public async Task What_was_not_flushed_may_be_lost_and_what_was_is_not()
    {
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(new ModelPlugin(Fill(1, Size))) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 2, 0, 2048);
        await disk.FlushAsync(default);
        await WriteAsync(disk, 3, 1024, 2048);
        var seen = new HashSet<(byte, byte, byte, byte)>();
        for (int seed = 0; seed < 200; seed++)
        {
            await using PowercutImage image = await plugin.CutAsync(seed);
            byte[] content = await ContentAsync(image);
            Assert.That(content.AsSpan(0, 1024).ToArray(), Is.All.EqualTo(2));
            Assert.That(content.AsSpan(1024, 1024).ToArray(), Is.All.EqualTo(2).Or.All.AnyOf(2, 3));
            Assert.That(content.AsSpan(2048, 1024).ToArray(), Is.All.AnyOf(1, 3));
            seen.Add((content[1024], content[1536], content[2048], content[2560]));
        }
        Assert.That(seen, Has.Count.EqualTo(16), "each of four sectors, torn off the others");
    }

    [Test]
    public async Task FUA_makes_its_own_range_durable_and_nothing_else()
    {
        var stable = new ModelPlugin(Fill(1, Size));
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(stable) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 2, 0, 1536);
        await WriteAsync(disk, 3, 512, 512, fua: true);
        await WriteAsync(disk, 4, 768, 10);

        Assert.That(stable.Stable.AsSpan(0, 512).ToArray(), Is.All.EqualTo(1));
        Assert.That(stable.Stable.AsSpan(512, 512).ToArray(), Is.All.EqualTo(3));
        Assert.That(stable.Stable.AsSpan(1024).ToArray(), Is.All.EqualTo(1));
        for (int seed = 0; seed < 50; seed++)
        {
            await using PowercutImage image = await plugin.CutAsync(seed);
            byte[] content = await ContentAsync(image);
            Assert.That(content.AsSpan(0, 512).ToArray(), Is.All.EqualTo(1).Or.All.EqualTo(2));
            Assert.That(content[512], Is.EqualTo(3), "older writes have lost this sector");
            Assert.That(content[768], Is.EqualTo(3).Or.EqualTo(4));
            Assert.That(content.AsSpan(1024, 512).ToArray(), Is.All.EqualTo(1).Or.All.EqualTo(2));
        }
        await disk.FlushAsync(default);
        Assert.That(stable.Stable[600], Is.EqualTo(3), "what is older does not come over it later");
        Assert.That(stable.Stable[100], Is.EqualTo(2));
    }

    [Test]
    public async Task The_same_seed_over_the_same_history_draws_the_same_image()
    {
        byte[][] images = new byte[2][];
        for (int i = 0; i < 2; i++)
        {
            var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(new ModelPlugin(Fill(1, Size))) };
            await using NbdBackend chain = NbdBackend.Compose(plugin);
            await using NextContext disk = await chain.OpenAsync();
            await WriteAsync(disk, 2, 0, 5000);
            await WriteAsync(disk, 3, 3000, 5000);
            images[i] = [];
            for (int seed = 0; seed < 20; seed++)
            {
                await using PowercutImage image = await plugin.CutAsync(seed);
                images[i] = [.. images[i], .. await ContentAsync(image)];
            }
        }
        Assert.That(images[0], Is.EqualTo(images[1]));
    }

    [Test]
    public async Task An_image_stays_as_it_is_while_the_plugin_goes_on()
    {
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(new ModelPlugin(TestData.Random(40_000))) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 2, 1000, 9000);
        await using PowercutImage image = await plugin.CutAsync(11);
        byte[] before = await ContentAsync(image);
        await WriteAsync(disk, 3, 5000, 30_000, fua: true);
        await disk.ZeroAsync(0, 2000, RequestFlags.None, default);
        await disk.FlushAsync(default);
        await using PowercutImage later = await plugin.CutAsync(12);
        Assert.That(await ContentAsync(image), Is.EqualTo(before));
        await plugin.RebootAsync(image);
        Assert.That(await ContentAsync(image), Is.EqualTo(before));
        Assert.That(await ContentAsync(later), Is.EqualTo((byte[])[
            .. new byte[2000], .. Fill(2, 3000), .. Fill(3, 30_000), .. TestData.Random(40_000)[35_000..]]));
        byte[] part = new byte[77];
        await image.ReadAsync(part, 39_923);
        Assert.That(part, Is.EqualTo(before[39_923..]));
        Assert.That(async () => await image.ReadAsync(part, 39_924), Throws.TypeOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public async Task A_reboot_goes_on_from_the_image_and_ends_what_was_open()
    {
        var stable = new ModelPlugin(Fill(1, Size));
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(stable) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext old = await chain.OpenAsync();
        await WriteAsync(old, 2, 0, 4000);
        await WriteAsync(old, 3, 300, 6000);
        PowercutImage image = await plugin.CutAsync(5);
        byte[] content = await ContentAsync(image);
        await WriteAsync(old, 4, 0, Size, fua: true);
        await WriteAsync(old, 5, 0, Size);
        await plugin.RebootAsync(image);

        Assert.That((plugin.Generation, plugin.Pending), Is.EqualTo((1, 0)));
        Assert.That(stable.Stable, Is.EqualTo(content));
        Assert.That(TestData.Failure(async () => await old.ReadAsync(new byte[1], 0, default)).Error, Is.EqualTo(NbdError.Shutdown));
        Assert.That(TestData.Failure(async () => await WriteAsync(old, 1, 0, 1)).Error, Is.EqualTo(NbdError.Shutdown));
        Assert.That(TestData.Failure(async () => await WriteAsync(old, 1, 0, 1, fua: true)).Error, Is.EqualTo(NbdError.Shutdown));
        Assert.That(TestData.Failure(async () => await old.FlushAsync(default)).Error, Is.EqualTo(NbdError.Shutdown));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(disk, 0, Size), Is.EqualTo(content));
        await WriteAsync(disk, 6, 0, 100, fua: true);
        await plugin.RebootAsync(image);
        Assert.That(stable.Stable, Is.EqualTo(content), "an image is good for more than one reboot");
        await image.DisposeAsync();
        Assert.That(async () => await plugin.RebootAsync(image), Throws.InvalidOperationException);
        Assert.That(async () => await image.ReadAsync(new byte[1], 0), Throws.TypeOf<ObjectDisposedException>());
    }

    [Test]
    public async Task A_reboot_by_seed_leaves_what_the_image_of_that_seed_has([Range(0, 15)] int seed)
    {
        var random = new Random(seed);
        var stable = new ModelPlugin(TestData.Random(Size));
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(stable), SectorSize = random.Next(2) == 0 ? 512 : 1024 };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        for (int i = 0; i < 10; i++)
        {
            int offset = random.Next(Size - 1);
            int length = random.Next(1, Size - offset);
            await (random.Next(3) == 0
                ? disk.TrimAsync(offset, length, RequestFlags.None, default)
                : WriteAsync(disk, (byte)(i + 1), offset, length, fua: random.Next(5) == 0));
        }
        await using PowercutImage image = await plugin.CutAsync(seed);
        byte[] content = await ContentAsync(image);
        await plugin.RebootAsync(seed);
        Assert.That(stable.Stable, Is.EqualTo(content));
    }

    [Test]
    public async Task Too_much_is_refused_and_nothing_is_flushed_to_make_room()
    {
        var stable = new ModelPlugin(Fill(1, Size));
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(stable), MaxPending = 2048 };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 2, 0, 1000);
        await disk.TrimAsync(0, Size, RequestFlags.None, default);
        Assert.That(plugin.Pending, Is.EqualTo(1512));
        Assert.That(TestData.Failure(async () => await WriteAsync(disk, 3, 0, 1000)).Error, Is.EqualTo(NbdError.NoSpace));
        await WriteAsync(disk, 3, 6000, 2000, fua: true);
        await WriteAsync(disk, 4, 0, 536);
        Assert.That(TestData.Failure(async () => await WriteAsync(disk, 5, 0, 1)).Error, Is.EqualTo(NbdError.NoSpace));
        Assert.That(stable.Stable[5000], Is.EqualTo(1));
        await disk.FlushAsync(default);
        Assert.That(plugin.Pending, Is.Zero);
        await WriteAsync(disk, 5, 0, 2048);
        Assert.That(stable.Stable[5000], Is.Zero);
    }

    [Test]
    public async Task Without_multi_conn_a_flush_is_for_its_own_context()
    {
        var stable = new ModelPlugin(Fill(1, Size));
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(stable), IsMultiConn = false };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext one = await chain.OpenAsync();
        await using NextContext two = await chain.OpenAsync();
        Assert.That(one.Info.CanMultiConn, Is.False);
        await WriteAsync(one, 2, 0, 1024);
        await WriteAsync(two, 3, 512, 1024);
        await two.FlushAsync(default);
        Assert.That((stable.Stable[0], stable.Stable[512], stable.Stable[1024]), Is.EqualTo((1, 3, 3)));
        await one.FlushAsync(default);
        Assert.That((stable.Stable[0], stable.Stable[512], stable.Stable[1024]), Is.EqualTo((2, 3, 3)));
    }

    [Test]
    public async Task A_flush_takes_what_had_completed_when_it_began_and_a_cut_waits_for_it()
    {
        var gate = new Gate();
        var stable = new ModelPlugin(Fill(1, Size));
        stable.Before = call => call.StartsWith("flush", StringComparison.Ordinal) ? gate.PassAsync().AsTask() : Task.CompletedTask;
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(stable) };
        NbdBackend chain = NbdBackend.Compose(plugin);
        NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 2, 0, 512);
        Task flush = disk.FlushAsync(default).AsTask();
        await gate.ArrivedAsync();
        await WriteAsync(disk, 3, 512, 512);
        Task durable = WriteAsync(disk, 4, 1024, 512, fua: true).AsTask();
        Task<PowercutImage> cut = plugin.CutAsync(0).AsTask();
        Assert.That((flush.IsCompleted, durable.IsCompleted, cut.IsCompleted), Is.EqualTo((false, false, false)));
        Assert.That(await TestData.ReadAsync(disk, 1024, 1), Is.EqualTo(Fill(4, 1)), "what is in flight is seen");
        gate.Open();
        await flush.Soon();
        await durable.Soon();
        await using (PowercutImage image = await cut.Soon())
        {
            Assert.That((await ContentAsync(image))[0], Is.EqualTo(2));
        }
        Assert.That((stable.Stable[0], stable.Data[512], stable.Stable[1024]), Is.EqualTo((2, 1, 4)));
        await disk.DisposeAsync();
        await chain.DisposeAsync();
        Assert.That(stable.Data[512], Is.EqualTo(3), "an orderly stop is no power cut");
    }

    [Test]
    public async Task A_flush_that_fails_has_lost_nothing()
    {
        bool fails = true;
        var stable = new ModelPlugin(Fill(1, Size));
        stable.Before = call => fails && call.StartsWith("write 512", StringComparison.Ordinal)
            ? Task.FromException(new NbdException(NbdError.IoError, "not today"))
            : Task.CompletedTask;
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(stable) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 2, 0, 512);
        Assert.That(TestData.Failure(async () => await WriteAsync(disk, 3, 512, 512, fua: true)).Message, Is.EqualTo("not today"));
        Assert.That(TestData.Failure(async () => await disk.FlushAsync(default)).Message, Is.EqualTo("not today"));
        Assert.That(TestData.Failure(async () => await plugin.RebootAsync(2)).Message, Is.EqualTo("not today"));
        Assert.That(await TestData.ReadAsync(disk, 511, 2), Is.EqualTo(new byte[] { 2, 3 }));
        fails = false;
        await disk.FlushAsync(default);
        Assert.That((stable.Stable[0], stable.Stable[512]), Is.EqualTo((2, 3)));
    }

    [Test]
    public async Task A_chain_gets_only_what_it_takes([Values] bool flushes, [Values] bool zeroes)
    {
        NbdExportInfo info = ModelPlugin.Everything with
        {
            BlockSize = new BlockSize(4096, 4096, 8192),
            CanFlush = flushes,
            CanFua = flushes ? Support.Emulate : Support.Native,
            CanZero = zeroes ? Support.Emulate : Support.None,
            CanTrim = false,
            CanExtents = false,
        };
        var stable = new ModelPlugin(Fill(1, 65_536), info);
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(stable) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.BlockSize.Minimum, Is.EqualTo(4096));
        await disk.TrimAsync(0, 65_536, RequestFlags.None, default);
        await WriteAsync(disk, 2, 4096, 8192);
        await disk.FlushAsync(default);
        Assert.That((stable.Stable[0], stable.Stable[4096], stable.Stable[12_288]), Is.EqualTo((0, 2, 0)));
        await WriteAsync(disk, 3, 0, 8192);
        await disk.TrimAsync(32_768, 8192, RequestFlags.None, default);
        await using PowercutImage image = await plugin.CutAsync(9);
        byte[] content = await ContentAsync(image);
        byte[] odd = new byte[1000];
        await image.ReadAsync(odd, 3333);
        Assert.That(odd, Is.EqualTo(content[3333..4333]));
        await plugin.RebootAsync(image);
        Assert.That(stable.Stable, Is.EqualTo(content));
        Assert.That(stable.Offence, Is.Null);
    }

    [Test]
    public async Task A_huge_disk_is_trimmed_cut_and_rebooted_at_once()
    {
        const long Huge = 1L << 50;
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(new MemoryPlugin { Size = Huge }) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 2, Huge / 2, 4096, fua: true);
        await disk.TrimAsync(100, Huge - 100, RequestFlags.None, default);
        await WriteAsync(disk, 3, Huge - 512, 512, fua: true);
        for (int seed = 0; seed < 8; seed++)
        {
            await using PowercutImage image = await plugin.CutAsync(seed);
            byte[] part = new byte[4096];
            await image.ReadAsync(part, Huge / 2);
            Assert.That(part, Is.All.EqualTo(0).Or.All.EqualTo(2));
            await image.ReadAsync(part, Huge - 4096);
            Assert.That(part[4095], Is.EqualTo(3));
        }
        await using PowercutImage kept = await plugin.CutAsync(1);
        await disk.FlushAsync(default);
        await disk.ZeroAsync(0, Huge, RequestFlags.MayTrim, default);
        await plugin.RebootAsync(3).Soon();
        await plugin.RebootAsync(kept).Soon();
        await using NextContext after = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(after, Huge - 512, 512), Is.All.EqualTo(3));
    }

    [Test]
    public async Task An_image_is_served_and_written_over()
    {
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(new ModelPlugin(TestData.Random(Size))) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await WriteAsync(disk, 2, 0, 5000);
        PowercutImage image = await plugin.CutAsync(4);
        byte[] content = await ContentAsync(image);
        await using (NbdBackend served = NbdBackend.Compose(image, new CowFilter { Store = CowStore.Memory }))
        {
            await using NextContext copy = await served.OpenAsync();
            Assert.That(await TestData.ReadAsync(copy, 0, Size), Is.EqualTo(content));
            await WriteAsync(copy, 9, 17, 5);
            await copy.FlushAsync(default);
            Assert.That(await ContentAsync(image), Is.EqualTo(content));
        }
        Assert.That(async () => await image.ReadAsync(new byte[1], 0), Throws.TypeOf<ObjectDisposedException>());
    }
}
