using NbdKit.Plugins;

namespace NbdKit.Tests.Plugins;

public sealed class DelegatePluginTests
{
    [Test]
    public async Task A_disk_of_three_lines_can_be_read_and_written()
    {
        byte[] bytes = new byte[100];
        var plugin = new DelegatePlugin(
            bytes.Length,
            (buffer, offset) => bytes.AsSpan((int)offset, buffer.Length).CopyTo(buffer),
            (data, offset) => data.CopyTo(bytes.AsSpan((int)offset)));

        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[] { 1, 2, 3 }, 50, RequestFlags.None, default);
        await disk.ZeroAsync(51, 1, RequestFlags.None, default);
        byte[] found = new byte[5];
        await disk.ReadAsync(found, 49, default);
        Assert.That(found, Is.EqualTo(new byte[] { 0, 1, 0, 3, 0 }));
        Assert.That((disk.Info.Size, disk.Info.CanWrite, disk.Info.CanFlush), Is.EqualTo((100L, true, false)));
    }

    [Test]
    public async Task A_disk_without_a_write_delegate_is_read_only()
    {
        await using NbdBackend chain = NbdBackend.Compose(new DelegatePlugin(10, (buffer, _) => buffer.Fill(0x55)));
        await using NextContext disk = await chain.OpenAsync();
        byte[] found = new byte[10];
        await disk.ReadAsync(found, 0, default);
        Assert.That(found, Is.All.EqualTo(0x55));
        Assert.That((disk.Info.CanWrite, disk.Info.CanZero), Is.EqualTo((false, Support.None)));
    }

    [Test]
    public async Task Capabilities_follow_from_the_delegates()
    {
        var log = new List<string>();
        var plugin = new DelegatePlugin
        {
            Size = 1000,
            Read = (buffer, offset, _) => Note($"read {buffer.Length} {offset}"),
            Write = (data, offset, flags, _) => Note($"write {data.Length} {offset} {flags}"),
            Flush = _ => Note("flush"),
            Trim = (offset, length, flags, _) => Note($"trim {offset} {length} {flags}"),
            Zero = (offset, length, flags, _) => Note($"zero {offset} {length} {flags}"),
            Cache = (offset, length, _) => Note($"cache {offset} {length}"),
            Extents = (offset, length, flags, extents, _) =>
            {
                extents.Add(offset, length, ExtentStatus.Zero);
                return Note($"extents {offset} {length} {flags}");
            },
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        NbdExportInfo info = disk.Info;
        Assert.That(new[] { info.CanWrite, info.CanFlush, info.CanTrim, info.CanExtents }, Is.All.True);
        Assert.That(
            (info.CanZero, info.CanFua, info.CanCache), Is.EqualTo((Support.Native, Support.Emulate, Support.Native)));

        var extents = new ExtentList(6, 1000);
        await disk.ReadAsync(new byte[3], 1, default);
        await disk.WriteAsync(new byte[4], 2, RequestFlags.Fua, default);
        await disk.TrimAsync(3, 30, RequestFlags.None, default);
        await disk.ZeroAsync(4, 40, RequestFlags.MayTrim, default);
        await disk.CacheAsync(5, 50, default);
        await disk.ExtentsAsync(6, 60, RequestFlags.RequestOne, extents, default);
        Assert.That(log, Is.EqualTo(new[]
        {
            "read 3 1",
            "write 4 2 None",
            "flush",
            "trim 3 30 None",
            "zero 4 40 MayTrim",
            "cache 5 50",
            "extents 6 60 RequestOne",
        }));
        Assert.That(extents, Is.EqualTo(new[] { new Extent(6, 60, ExtentStatus.Zero) }));

        ValueTask Note(string call)
        {
            log.Add(call);
            return default;
        }
    }

    [Test]
    public async Task Only_what_is_given_is_offered()
    {
        await using NbdBackend chain = NbdBackend.Compose(new DelegatePlugin(10, (_, _) => { }, (_, _) => { }));
        await using NextContext disk = await chain.OpenAsync();
        NbdExportInfo info = disk.Info;
        Assert.That(new[] { info.CanFlush, info.CanTrim, info.CanExtents, info.CanMultiConn }, Is.All.False);
        Assert.That(
            (info.CanZero, info.CanFastZero, info.CanFua, info.CanCache),
            Is.EqualTo((Support.Emulate, true, Support.None, Support.None)));
    }

    [Test]
    public async Task An_info_is_taken_word_for_word()
    {
        var plugin = new DelegatePlugin
        {
            Info = new NbdExportInfo
            {
                Size = 4096,
                BlockSize = new BlockSize(512, 4096),
                CanTrim = true,
                CanWrite = true,
            },
            Read = (_, _, _) => default,
            Write = (_, _, _, _) => default,
            Flush = _ => default,
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((disk.Info.Size, disk.Info.BlockSize.Minimum), Is.EqualTo((4096L, 512L)));
        Assert.That(disk.Info.CanFlush, Is.False, "although there is a delegate");
        Assert.That(
            async () => await disk.TrimAsync(0, 512, RequestFlags.None, default),
            Throws.TypeOf<NbdException>().With.Property("Error").EqualTo(NbdError.InvalidArgument),
            "claimed, but there is no delegate");
    }

    [Test]
    public async Task A_claim_without_a_delegate_fails_like_a_method_that_is_not_implemented()
    {
        var plugin = new DelegatePlugin
        {
            Info = new NbdExportInfo
            {
                Size = 10,
                CanWrite = true,
                CanFlush = true,
                CanZero = Support.Native,
                CanFastZero = true,
                CanCache = Support.Native,
                CanExtents = true,
            },
            Read = (_, _, _) => default,
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(
            await ErrorOf(() => disk.WriteAsync(new byte[1], 0, RequestFlags.None, default)),
            Is.EqualTo(NbdError.PermissionDenied));
        Assert.That(await ErrorOf(() => disk.FlushAsync(default)), Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(
            await ErrorOf(() => disk.ZeroAsync(0, 1, RequestFlags.FastZero, default)),
            Is.EqualTo(NbdError.NotSupported));
        Assert.That(
            await ErrorOf(() => disk.ExtentsAsync(0, 1, RequestFlags.None, new ExtentList(0, 10), default)),
            Is.EqualTo(NbdError.InvalidArgument));
        await disk.CacheAsync(0, 1, default);

        static async Task<NbdError?> ErrorOf(Func<ValueTask> call)
        {
            try
            {
                await call();
                return null;
            }
            catch (NbdException e)
            {
                return e.Error;
            }
        }
    }

    [Test]
    public async Task The_derived_info_can_be_adjusted_at_each_open()
    {
        int opens = 0;
        var plugin = new DelegatePlugin(10, (_, _) => { }, (_, _) => { })
        {
            AdjustInfo = info => info with { CanMultiConn = true, Description = $"open {++opens}" },
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext first = await chain.OpenAsync();
        await using NextContext second = await chain.OpenAsync();
        Assert.That(
            (second.Info.CanWrite, second.Info.CanMultiConn, second.Info.Description),
            Is.EqualTo((true, true, "open 2")));
    }

    [Test]
    public async Task The_hooks_see_opens_closes_and_lists()
    {
        var log = new List<string>();
        var plugin = new DelegatePlugin(10, (_, _) => { })
        {
            Name = "hooked",
            Open = (context, _) =>
            {
                log.Add($"open {context.ExportName} {context.ReadOnly}");
                return default;
            },
            Close = () =>
            {
                log.Add("close");
                return default;
            },
            ListExports = (exports, _) =>
            {
                exports.Add("a", "first");
                return default;
            },
            DefaultExport = _ => new("b"),
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await (await chain.OpenAsync(readOnly: true)).DisposeAsync();
        var exports = new ExportList();
        await chain.ListExportsAsync(exports, readOnly: false, connection: null, default);
        Assert.That(chain.Name, Is.EqualTo("hooked"));
        Assert.That(log, Is.EqualTo(new[] { "open b True", "close" }));
        Assert.That(exports.Single(), Is.EqualTo(new NbdExport("a", "first")));
    }

    [Test]
    public async Task Without_hooks_there_is_the_default_export()
    {
        await using NbdBackend chain = NbdBackend.Compose(new DelegatePlugin(10, (_, _) => { }));
        await chain.StartAsync();
        var exports = new ExportList();
        await chain.ListExportsAsync(exports, readOnly: false, connection: null, default);
        Assert.That(exports.Single().Name, Is.Empty);
    }

    [Test]
    public async Task An_open_hook_may_refuse_and_may_serve_another_disk()
    {
        var plugin = new DelegatePlugin
        {
            Open = (context, _) => context.ExportName switch
            {
                "" => throw new NbdException(NbdError.PermissionDenied, "no"),
                string name => new(new DelegatePlugin(name.Length, (buffer, _) => buffer.Fill((byte)name[0]))),
            },
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        Assert.That(async () => await chain.OpenAsync(), Throws.TypeOf<NbdException>().With.Message.EqualTo("no"));
        await using NextContext disk = await chain.OpenAsync("xyz");
        byte[] found = new byte[3];
        await disk.ReadAsync(found, 0, default);
        Assert.That(found, Is.EqualTo("xxx"u8.ToArray()));
    }

    [Test]
    public void A_disk_without_read_or_size_fails_the_start()
    {
        DelegatePlugin[] incomplete =
        [
            new() { Size = 10 },
            new() { Read = (_, _, _) => default },
            new() { Read = (_, _, _) => default, Size = 10, Info = new NbdExportInfo { Size = 10 } },
        ];
        foreach (DelegatePlugin plugin in incomplete)
        {
            Assert.That(async () => await NbdBackend.Compose(plugin).StartAsync(), Throws.InvalidOperationException);
        }
    }

    [Test]
    public void Wrong_values_are_refused_where_they_are_set()
    {
        Assert.That(() => new DelegatePlugin { Size = -1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new DelegatePlugin { Name = "" }, Throws.ArgumentException);
        Assert.That(() => new DelegatePlugin(-1, (_, _) => { }), Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new DelegatePlugin(1, null!), Throws.ArgumentNullException);
    }

    [TestCase(null, 1)]
    [TestCase(ThreadModel.Parallel, 2)]
    public async Task Calls_come_one_at_a_time_unless_told_otherwise(ThreadModel? model, int atOnce)
    {
        var release = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        int started = 0;
        Func<Memory<byte>, long, CancellationToken, ValueTask> read = (_, _, _) =>
        {
            Interlocked.Increment(ref started);
            return new(release.Task);
        };
        DelegatePlugin plugin = model is null
            ? new() { Size = 10, Read = read }
            : new() { Size = 10, Read = read, ThreadModel = model.Value };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext one = await chain.OpenAsync();
        await using NextContext other = await chain.OpenAsync();
        Task first = one.ReadAsync(new byte[1], 0, default).AsTask();
        Task second = other.ReadAsync(new byte[1], 0, default).AsTask();
        Assert.That(started, Is.EqualTo(atOnce));
        release.SetResult();
        await Task.WhenAll(first, second);
        Assert.That(started, Is.EqualTo(2));
    }
}
