using System.Text;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public sealed class LuksFilterTests
{
    private const int Start = LuksImage.HeaderBytes;
    private static readonly CancellationToken None = CancellationToken.None;

    private readonly byte[] _content = TestData.Random(600_064, 7);

    private static LuksFilter Filter(bool? discard = null, string passphrase = LuksImage.Passphrase, long most = 1000)
        => new() { Passphrase = Encoding.UTF8.GetBytes(passphrase), Discard = discard, MaxIterations = most };

    private ModelPlugin Plugin(LuksImage image, BlockSize blocks = default, bool yields = false)
        => new(image.Disk(_content), ModelPlugin.Everything with { BlockSize = blocks }) { Yields = yields };

    [Test]
    public async Task The_content_is_what_is_after_the_header_in_whole_sectors()
    {
        var image = new LuksImage();
        byte[] disk = [.. image.Disk(_content), .. new byte[511]];
        var plugin = new ModelPlugin(disk, ModelPlugin.Everything with { CanCache = Support.Emulate });
        await using NbdBackend chain = NbdBackend.Compose(plugin, Filter());
        await using NextContext opened = await chain.OpenAsync();
        NbdExportInfo info = opened.Info;
        Assert.That(info.Size, Is.EqualTo(_content.Length));
        Assert.That(info.BlockSize, Is.EqualTo(new BlockSize(1, 4096)));
        Assert.That((info.CanZero, info.CanFastZero, info.CanFua, info.CanCache), Is.EqualTo((Support.Emulate, true, Support.Native, Support.Native)));
        Assert.That((info.CanTrim, info.CanExtents, info.CanMultiConn, info.CanReadSparse), Is.EqualTo((false, true, true, Support.None)));
        Assert.That((await TestData.ReadAsync(opened, 0, _content.Length)).AsSpan().SequenceEqual(_content));
    }

    [TestCase("xts-plain64", 64)]
    [TestCase("xts-plain64", 48)]
    [TestCase("xts-plain", 32)]
    [TestCase("cbc-plain64", 24)]
    [TestCase("cbc-essiv:sha256", 32)]
    public async Task Reads_and_writes_of_any_alignment_do_what_they_say(string mode, int keyBytes)
    {
        var image = new LuksImage(mode, keyBytes);
        ModelPlugin plugin = Plugin(image, new BlockSize(512, 4096, 131_072));
        byte[] expected = [.. _content];
        var random = new Random(5);
        await using NbdBackend chain = NbdBackend.Compose(plugin, Filter());
        await using NextContext disk = await chain.OpenAsync();
        for (int i = 0; i < 100; i++)
        {
            int length = random.Next(1, random.Next(10) == 0 ? expected.Length : 3000);
            int offset = random.Next(expected.Length - length + 1);
            byte[] data = TestData.Random(length, i);
            await disk.WriteAsync(data, offset, RequestFlags.None, None);
            data.CopyTo(expected, offset);
            offset = random.Next(expected.Length - length + 1);
            Assert.That((await TestData.ReadAsync(disk, offset, length)).AsSpan().SequenceEqual(expected.AsSpan(offset, length)), $"{i}");
        }
        Assert.That(image.Content(plugin.Data).AsSpan().SequenceEqual(expected), "on the disk");
        Assert.That(plugin.Data.AsSpan(0, Start).SequenceEqual(image.Header), "the header");
        Assert.That(plugin.Offence, Is.Null);
    }

    [Test]
    public async Task A_write_inside_a_sector_leaves_its_neighbours_and_forces_only_what_it_writes()
    {
        var image = new LuksImage();
        ModelPlugin plugin = Plugin(image);
        await using NbdBackend chain = NbdBackend.Compose(plugin, Filter());
        await using NextContext disk = await chain.OpenAsync();
        plugin.TakeCalls();
        await disk.WriteAsync(new byte[] { 1, 2 }, 1023, RequestFlags.Fua, None);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[]
        {
            $"read {Start + 512}+512", $"write {Start + 512}+512 Fua", $"read {Start + 1024}+512", $"write {Start + 1024}+512 Fua",
        }));
        byte[] expected = [.. _content];
        expected[1023] = 1;
        expected[1024] = 2;
        Assert.That(image.Content(plugin.Data).AsSpan().SequenceEqual(expected));
    }

    [Test]
    public async Task A_large_write_goes_in_pieces_and_a_small_unaligned_read_is_one_read()
    {
        ModelPlugin plugin = Plugin(new LuksImage());
        await using NbdBackend chain = NbdBackend.Compose(plugin, Filter());
        await using NextContext disk = await chain.OpenAsync();
        plugin.TakeCalls();
        await disk.WriteAsync(_content, 0, RequestFlags.None, None);
        await TestData.ReadAsync(disk, 511, 1000);
        await TestData.ReadAsync(disk, 1024, 100_352);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[]
        {
            $"write {Start}+262144", $"write {Start + 262_144}+262144", $"write {Start + 524_288}+75776",
            $"read {Start}+1536", $"read {Start + 1024}+100352",
        }));
    }

    [Test]
    public async Task A_block_of_the_layer_below_is_changed_as_a_whole()
    {
        var image = new LuksImage();
        ModelPlugin plugin = Plugin(image, new BlockSize(4096, 4096));
        await using NbdBackend chain = NbdBackend.Compose(plugin, Filter());
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(_content.Length / 4096 * 4096));
        plugin.TakeCalls();
        await disk.WriteAsync(new byte[512], 4608, RequestFlags.None, None);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { $"read {Start + 4096}+4096", $"write {Start + 4096}+4096" }));
        byte[] expected = [.. _content];
        expected.AsSpan(4608, 512).Clear();
        Assert.That(image.Content(plugin.Data).AsSpan().SequenceEqual(expected));
        Assert.That(plugin.Offence, Is.Null);
    }

    [Test]
    public async Task Data_that_begins_inside_a_block_of_the_layer_below_is_refused()
    {
        var image = new LuksImage();
        image.Number(104, 127);
        await using NbdBackend chain = NbdBackend.Compose(Plugin(image, new BlockSize(4096, 4096)), Filter());
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That(e.Message, Does.Contain("begins at 65024, which is not a multiple of the minimum block size"));
    }

    [Test]
    public async Task Writers_of_interleaved_bytes_lose_nothing_and_readers_see_no_halves([Values(1, 2)] int seed)
    {
        const int Writers = 7;
        const int Size = 4096;
        // In this mode a sector that is half old and half new is wrong everywhere.
        var image = new LuksImage("cbc-essiv:sha256", 32);
        ModelPlugin plugin = Plugin(image, yields: true);
        await using NbdBackend chain = NbdBackend.Compose(plugin, Filter());
        await using NextContext one = await chain.OpenAsync("one");
        await using NextContext two = await chain.OpenAsync("two");
        await Task.WhenAll(Enumerable.Range(0, Writers).Select(async writer =>
        {
            var random = new Random((seed * 10) + writer);
            int[] own = [.. Enumerable.Range(0, Size / Writers).Select(i => (i * Writers) + writer)];
            random.Shuffle(own);
            foreach (int offset in own.Take(100))
            {
                NextContext disk = random.Next(2) == 0 ? one : two;
                await disk.WriteAsync(new byte[] { (byte)(offset + 1) }, offset, RequestFlags.None, None);
                Assert.That((await TestData.ReadAsync(two, offset, 1))[0], Is.EqualTo((byte)(offset + 1)), $"byte {offset}, seed {seed}");
            }
        }));
        byte[] content = image.Content(plugin.Data);
        Assert.That(content.AsSpan(Size).SequenceEqual(_content.AsSpan(Size)));
        Assert.That(content.Take(Size).Where((b, i) => b != _content[i] && b != (byte)(i + 1)), Is.Empty);
    }

    [Test]
    public async Task A_sector_that_is_being_changed_is_not_read_before_it_is_whole()
    {
        ModelPlugin plugin = Plugin(new LuksImage());
        await using NbdBackend chain = NbdBackend.Compose(plugin, Filter());
        await using NextContext disk = await chain.OpenAsync();
        var reached = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var go = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        plugin.Before = call =>
        {
            if (call != $"write {Start}+512")
            {
                return Task.CompletedTask;
            }
            reached.TrySetResult();
            return go.Task;
        };
        Task write = disk.WriteAsync(new byte[] { 9 }, 10, RequestFlags.None, None).AsTask();
        await reached.Task;
        Task<byte[]> whole = TestData.ReadAsync(disk, 0, 512);
        Task<byte[]> part = TestData.ReadAsync(disk, 400, 4);
        await TestData.ReadAsync(disk, 512, 512);
        Assert.That((whole.IsCompleted, part.IsCompleted), Is.EqualTo((false, false)));
        go.SetResult();
        await write;
        Assert.That(((await whole)[10], (await part)[0]), Is.EqualTo(((byte)9, _content[400])));
    }

    [Test]
    public async Task Zeroes_are_written()
    {
        var image = new LuksImage();
        ModelPlugin plugin = Plugin(image);
        await using NbdBackend chain = NbdBackend.Compose(plugin, Filter());
        await using NextContext disk = await chain.OpenAsync();
        plugin.TakeCalls();
        await disk.ZeroAsync(100, 2000, RequestFlags.MayTrim, None);
        Assert.That(plugin.TakeCalls(), Has.None.StartsWith("zero").And.None.StartsWith("trim"));
        byte[] expected = [.. _content];
        expected.AsSpan(100, 2000).Clear();
        Assert.That(image.Content(plugin.Data).AsSpan().SequenceEqual(expected));
        NbdException e = TestData.Failure(async () => await disk.ZeroAsync(0, 512, RequestFlags.FastZero, None));
        Assert.That(e.Error, Is.EqualTo(NbdError.NotSupported));
    }

    [Test]
    public async Task Trims_pass_for_whole_sectors_if_they_are_allowed()
    {
        ModelPlugin plugin = Plugin(new LuksImage());
        await using NbdBackend chain = NbdBackend.Compose(plugin, Filter(discard: true));
        await using NextContext disk = await chain.OpenAsync();
        plugin.TakeCalls();
        await disk.TrimAsync(100, 2000, RequestFlags.Fua, None);
        await disk.TrimAsync(1, 600, RequestFlags.None, None);
        await disk.TrimAsync(512, 512, RequestFlags.None, None);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { $"trim {Start + 512}+1536 Fua", $"trim {Start + 512}+512" }));
        await disk.CacheAsync(100, 2000, None);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { $"cache {Start}+2560" }));
    }

    [Test]
    public async Task Holes_are_no_promise_of_zeroes()
    {
        var image = new LuksImage();
        byte[] disk = image.Disk(_content);
        disk.AsSpan(Start + 1024, 4096).Clear();
        var plugin = new TestPlugin(new TestExport
        {
            Data = disk,
            Extents = (call, list) =>
            {
                list.Add(call.Offset, Math.Max(0, Start + 1024 - call.Offset), ExtentStatus.Data);
                list.Add(Math.Max(call.Offset, Start + 1024), 4096, ExtentStatus.Hole | ExtentStatus.Zero);
            },
        });
        await using NbdBackend chain = NbdBackend.Compose(plugin, Filter());
        await using NextContext opened = await chain.OpenAsync();
        ExtentList extents = await opened.ExtentsFullAsync(0, 5120, ExtentList.BaseAllocation, None);
        Assert.That(extents, Is.EqualTo(new[] { new Extent(0, 1024, ExtentStatus.Data), new Extent(1024, 4096, ExtentStatus.Hole) }));
        var part = new ExtentList(700, 5000);
        await opened.ExtentsAsync(700, 100, RequestFlags.RequestOne, part, None);
        Assert.That(part[0], Is.EqualTo(new Extent(700, 324, ExtentStatus.Data)));
        Assert.That((await TestData.ReadAsync(opened, 1024, 4096)).AsSpan().ContainsAnyExcept((byte)0), "what zeroes decrypt to");
    }

    [Test]
    public async Task A_wrong_passphrase_is_refused()
    {
        var plugin = new TestPlugin(new TestExport { Data = new LuksImage(slot: 3).Disk(_content) });
        await using NbdBackend chain = NbdBackend.Compose(plugin, Filter(passphrase: "open barley"));
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That((e.Error, e.Message), Is.EqualTo((NbdError.PermissionDenied, "the passphrase opens no key slot of the encrypted disk")));
        Assert.That((plugin.Opened, plugin.Closed), Is.EqualTo((1, 1)), "nothing stays open");
    }

    [Test]
    public async Task The_key_is_found_once_for_each_export_and_again_when_the_header_changes()
    {
        TestExport[] exports = [.. Enumerable.Range(0, 2).Select(i => new TestExport($"{i}") { Data = new LuksImage(seed: i).Disk(_content) })];
        var plugin = new TestPlugin(exports);
        int Areas() => plugin.Calls.Count(call => call.Op == PluginOp.Read && call.Offset is >= 592 and < Start);
        await using NbdBackend chain = NbdBackend.Compose(plugin, Filter());
        for (int round = 0; round < 3; round++)
        {
            for (int i = 0; i < 2; i++)
            {
                await using NextContext disk = await chain.OpenAsync($"{i}");
                Assert.That((await TestData.ReadAsync(disk, 0, 4096)).AsSpan().SequenceEqual(_content.AsSpan(0, 4096)));
            }
        }
        Assert.That(Areas(), Is.EqualTo(2));
        await using NextContext old = await chain.OpenAsync("0");
        // The disk is made anew, with another key, under the feet of those who use it.
        new LuksImage(seed: 9).Disk(_content).CopyTo(exports[0].Data, 0);
        await using NextContext fresh = await chain.OpenAsync("0");
        Assert.That((await TestData.ReadAsync(fresh, 0, 4096)).AsSpan().SequenceEqual(_content.AsSpan(0, 4096)));
        Assert.That(Areas(), Is.EqualTo(3));
        Assert.That((await TestData.ReadAsync(old, 0, 4096)).AsSpan().SequenceEqual(_content.AsSpan(0, 4096)), Is.False, "the old key");
    }

    [Test]
    public async Task Clients_that_come_at_once_find_the_key_one_after_the_other()
    {
        byte[] damaged = new LuksImage().Disk(_content);
        // Without its stripes, a key slot is tried in vain.
        damaged.AsSpan(1024, 512).Fill(1);
        var plugin = new TestPlugin(
            new TestExport("right") { Data = new LuksImage().Disk(_content) }, new TestExport("damaged") { Data = damaged });
        await using NbdBackend chain = NbdBackend.Compose(plugin, Filter());
        await Task.WhenAll(Enumerable.Range(0, 16).Select(i => Task.Run(async () =>
        {
            if (i % 2 == 0)
            {
                await using NextContext disk = await chain.OpenAsync("right");
                Assert.That((await TestData.ReadAsync(disk, 0, 4096)).AsSpan().SequenceEqual(_content.AsSpan(0, 4096)));
            }
            else
            {
                Assert.That(TestData.Failure(async () => await chain.OpenAsync("damaged")).Error, Is.EqualTo(NbdError.PermissionDenied));
            }
        })));
    }

    [Test]
    public async Task A_request_allocates_nothing()
    {
        await using NbdBackend chain = NbdBackend.Compose(new DataPlugin { Data = new LuksImage().Disk(_content) }, Filter());
        await using NextContext disk = await chain.OpenAsync();
        byte[] buffer = new byte[4096];
        for (int i = 0; i < 100; i++)
        {
            await disk.WriteAsync(buffer, i * 4096, RequestFlags.None, None);
            await disk.ReadAsync(buffer, i * 4096, None);
        }
        bool isHere = true;
        long least = long.MaxValue;
        // The pools of the framework may be emptied in between, under load.
        for (int round = 0; round < 5 && least > 0; round++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 1000; i++)
            {
                isHere &= disk.WriteAsync(buffer, i % 100 * 4096, RequestFlags.None, None).IsCompletedSuccessfully;
                isHere &= disk.ReadAsync(buffer, i % 100 * 4096, None).IsCompletedSuccessfully;
            }
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }
        Assert.That((isHere, least), Is.EqualTo((true, 0)));
    }

    [TestCase("open sesame", "open sesame")]
    [TestCase("+file", "open sesame")]
    [TestCase("+crlf", "open sesame\r")]
    [TestCase("", "")]
    public void A_passphrase_is_read_as_nbdkit_does(string value, string expected)
    {
        using var folder = new ScratchDirectory();
        folder.Write("file", "open sesame\nsecond line"u8.ToArray());
        folder.Write("crlf", "open sesame\r\n"u8.ToArray());
        if (value.StartsWith('+'))
        {
            value = "+" + folder[value[1..]];
        }
        using NbdKit.Filters.Luks.Secret secret = NbdKit.Filters.Luks.PassphraseArgument.Read("passphrase", value);
        Assert.That(Encoding.UTF8.GetString(secret.Span), Is.EqualTo(expected));
    }

    [TestCase("-2", "not the number of a file descriptor above 2")]
    [TestCase("-x", "not the number of a file descriptor above 2")]
    [TestCase("+/nonexistent/file", "the passphrase cannot be read")]
    public void A_passphrase_that_cannot_be_read_is_an_error(string value, string message)
    {
        ArgumentException e = Assert.Throws<ArgumentException>(
            () => new NbdCatalogue().Compose("memory", ["luks"], [new("size", "1M"), new("passphrase", value)]))!;
        Assert.That(e.Message, Does.Contain(message));
    }
}
