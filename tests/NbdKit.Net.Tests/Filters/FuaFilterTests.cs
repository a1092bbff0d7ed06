using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class FuaFilterTests
{
    private static readonly byte[] One = [1];

    private static readonly NbdExportInfo Flushes = ModelPlugin.Everything with { CanFua = Support.Emulate };
    private static readonly NbdExportInfo Neither = ModelPlugin.Everything with { CanFua = Support.None, CanFlush = false };

    private static ModelPlugin Plugin(NbdExportInfo info) => new(new byte[4096], info);

    private static async Task<string[]> CallsAsync(ModelPlugin plugin, FuaMode mode, RequestFlags flags)
    {
        await using NbdBackend chain = NbdBackend.Compose(plugin, new FuaFilter { Mode = mode });
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(One, 0, flags, default);
        await disk.TrimAsync(1, 2, flags, default);
        await disk.ZeroAsync(3, 4, flags, default);
        if (disk.Info.CanFlush)
        {
            await disk.FlushAsync(default);
        }
        return plugin.TakeCalls();
    }

    [TestCase(FuaMode.None, Support.None, true)]
    [TestCase(FuaMode.Emulate, Support.Emulate, true)]
    [TestCase(FuaMode.Native, Support.Native, true)]
    [TestCase(FuaMode.Force, Support.Native, true)]
    [TestCase(FuaMode.Pass, Support.Emulate, true)]
    [TestCase(FuaMode.Discard, Support.Native, true)]
    public async Task Each_mode_offers_what_it_says(FuaMode mode, Support fua, bool flush)
    {
        await using NbdBackend chain = NbdBackend.Compose(Plugin(Flushes), new FuaFilter { Mode = mode });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((disk.Info.CanFua, disk.Info.CanFlush), Is.EqualTo((fua, flush)));
    }

    [TestCase(FuaMode.None, Support.None, false)]
    [TestCase(FuaMode.Pass, Support.None, false)]
    [TestCase(FuaMode.Discard, Support.Native, true)]
    public async Task Modes_without_needs_work_over_a_layer_that_offers_nothing(FuaMode mode, Support fua, bool flush)
    {
        var plugin = Plugin(Neither);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new FuaFilter { Mode = mode });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((disk.Info.CanFua, disk.Info.CanFlush), Is.EqualTo((fua, flush)));
        await disk.WriteAsync(One, 0, fua == Support.None ? RequestFlags.None : RequestFlags.Fua, default);
        if (flush)
        {
            await disk.FlushAsync(default);
        }
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "write 0+1" }));
    }

    [TestCase(FuaMode.Emulate, "flush")]
    [TestCase(FuaMode.Native, "FUA")]
    [TestCase(FuaMode.Force, "FUA")]
    public async Task What_a_mode_needs_is_checked_when_the_export_is_opened(FuaMode mode, string need)
    {
        await using NbdBackend chain = NbdBackend.Compose(Plugin(Neither), new FuaFilter { Mode = mode });
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(e.Message, Does.Contain($"fuamode={mode.ToString().ToLowerInvariant()} needs").And.Contains(need));
        await using NextContext readOnly = await chain.OpenAsync(readOnly: true);
        Assert.That(readOnly.Info.CanFlush, Is.False);
    }

    [Test]
    public async Task Emulate_strips_the_flag_and_flushes_after_each_such_request()
    {
        Assert.That(await CallsAsync(Plugin(ModelPlugin.Everything), FuaMode.Emulate, RequestFlags.Fua), Is.EqualTo(new[]
        {
            "write 0+1", "flush", "trim 1+2", "flush", "zero 3+4", "flush", "flush",
        }));
        Assert.That(await CallsAsync(Plugin(ModelPlugin.Everything), FuaMode.Emulate, RequestFlags.None), Is.EqualTo(new[]
        {
            "write 0+1", "trim 1+2", "zero 3+4", "flush",
        }));
    }

    [TestCase(FuaMode.Native)]
    [TestCase(FuaMode.Pass)]
    public async Task Native_and_pass_hand_the_flag_on(FuaMode mode)
    {
        Assert.That(await CallsAsync(Plugin(ModelPlugin.Everything), mode, RequestFlags.Fua), Is.EqualTo(new[]
        {
            "write 0+1 Fua", "trim 1+2 Fua", "zero 3+4 Fua", "flush",
        }));
    }

    [TestCase(FuaMode.Native)]
    [TestCase(FuaMode.Pass)]
    public async Task Over_a_layer_that_emulates_the_flag_becomes_its_flush(FuaMode mode)
    {
        Assert.That(await CallsAsync(Plugin(Flushes), mode, RequestFlags.Fua), Is.EqualTo(new[]
        {
            "write 0+1", "flush", "trim 1+2", "flush", "zero 3+4", "flush", "flush",
        }));
    }

    [TestCase(RequestFlags.None)]
    [TestCase(RequestFlags.Fua)]
    public async Task Force_sets_the_flag_on_every_request_and_flush_does_nothing(RequestFlags flags)
    {
        Assert.That(await CallsAsync(Plugin(ModelPlugin.Everything), FuaMode.Force, flags), Is.EqualTo(new[]
        {
            "write 0+1 Fua", "trim 1+2 Fua", "zero 3+4 Fua",
        }));
        Assert.That(await CallsAsync(Plugin(Flushes), FuaMode.Force, flags), Is.EqualTo(new[]
        {
            "write 0+1", "flush", "trim 1+2", "flush", "zero 3+4", "flush",
        }));
    }

    [Test]
    public async Task Force_covers_zeroes_that_the_library_writes()
    {
        var plugin = Plugin(ModelPlugin.Everything with { CanZero = Support.Emulate });
        Assert.That(await CallsAsync(plugin, FuaMode.Force, RequestFlags.None), Does.Contain("write 3+4 Fua"));
        var declining = new ModelPlugin(new byte[4096]) { DeclinesZero = true };
        Assert.That(
            await CallsAsync(declining, FuaMode.Force, RequestFlags.None),
            Is.EqualTo(new[] { "write 0+1 Fua", "trim 1+2 Fua", "zero 3+4 Fua", "write 3+4 Fua" }));
    }

    [Test]
    public async Task Discard_drops_the_flag_and_the_flush()
    {
        Assert.That(await CallsAsync(Plugin(ModelPlugin.Everything), FuaMode.Discard, RequestFlags.Fua), Is.EqualTo(new[]
        {
            "write 0+1", "trim 1+2", "zero 3+4",
        }));
    }

    [Test]
    public async Task None_refuses_the_flag()
    {
        await using NbdBackend chain = NbdBackend.Compose(Plugin(ModelPlugin.Everything), new FuaFilter());
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(
            async () => await disk.WriteAsync(One, 0, RequestFlags.Fua, default), Throws.InvalidOperationException);
    }

    [TestCase(FuaMode.Force)]
    [TestCase(FuaMode.Discard)]
    [TestCase(FuaMode.Emulate)]
    public async Task A_read_only_open_is_not_changed(FuaMode mode)
    {
        var plugin = Plugin(ModelPlugin.Everything);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new FuaFilter { Mode = mode, FlushOnClose = true });
        await using (NextContext disk = await chain.OpenAsync(readOnly: true))
        {
            Assert.That(disk.Info.CanFua, Is.EqualTo(Support.None));
            await disk.FlushAsync(default);
        }
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "flush" }));
    }

    [Test]
    public async Task A_plugin_that_cannot_write_is_not_changed()
    {
        var plugin = Plugin(ModelPlugin.Everything with { CanWrite = false, CanFlush = false });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new FuaFilter { Mode = FuaMode.Force, FlushOnClose = true });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((disk.Info.CanFlush, disk.Info.CanFua), Is.EqualTo((false, Support.None)));
    }

    [TestCase(FuaMode.None)]
    [TestCase(FuaMode.Discard)]
    [TestCase(FuaMode.Force)]
    public async Task Flush_on_close_flushes_the_layer_below_whatever_the_mode(FuaMode mode)
    {
        var plugin = Plugin(ModelPlugin.Everything);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new FuaFilter { Mode = mode, FlushOnClose = true });
        await using (NextContext disk = await chain.OpenAsync())
        {
            await disk.WriteAsync(One, 7, RequestFlags.None, default);
            plugin.TakeCalls();
        }
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "flush" }));
        Assert.That(plugin.Stable[7], Is.EqualTo(1));
    }

    [Test]
    public async Task Flush_on_close_needs_a_layer_that_flushes()
    {
        await using NbdBackend chain = NbdBackend.Compose(Plugin(Neither), new FuaFilter { FlushOnClose = true });
        Assert.That(
            TestData.Failure(async () => await chain.OpenAsync()).Message, Does.Contain("flush-on-close needs"));
    }

    [Test]
    public async Task A_failed_write_is_not_hidden_by_the_flush_after_it()
    {
        var plugin = Plugin(ModelPlugin.Everything);
        plugin.Before = call => call.StartsWith("write", StringComparison.Ordinal)
            ? throw new NbdException(NbdError.NoSpace, "full") : Task.CompletedTask;
        await using NbdBackend chain = NbdBackend.Compose(plugin, new FuaFilter { Mode = FuaMode.Emulate });
        await using NextContext disk = await chain.OpenAsync();
        NbdException e = TestData.Failure(async () => await disk.WriteAsync(One, 0, RequestFlags.Fua, default));
        Assert.That(e.Error, Is.EqualTo(NbdError.NoSpace));
        Assert.That(plugin.TakeCalls(), Has.None.EqualTo("flush"));
    }

    [TestCase(null, FuaMode.None)]
    [TestCase("none", FuaMode.None)]
    [TestCase("emulate", FuaMode.Emulate)]
    [TestCase("native", FuaMode.Native)]
    [TestCase("force", FuaMode.Force)]
    [TestCase("pass", FuaMode.Pass)]
    [TestCase("discard", FuaMode.Discard)]
    public void The_entry_knows_every_mode(string? word, FuaMode mode)
    {
        var filter = (FuaFilter)FuaFilter.Entry.Create(
            new NbdParameters("fua", word is null ? [] : [new("fuamode", word), new("flush-on-close", "yes")]));
        Assert.That((filter.Mode, filter.FlushOnClose), Is.EqualTo((mode, word is not null)));
    }

    [Test]
    public void An_unknown_mode_is_refused()
    {
        Assert.That(
            () => FuaFilter.Entry.Create(new NbdParameters("fua", [new("fuamode", "maybe")])),
            Throws.ArgumentException.With.Message.Contains("fuamode=maybe"));
        Assert.That(() => new FuaFilter { Mode = (FuaMode)6 }, Throws.TypeOf<ArgumentOutOfRangeException>());
    }
}
