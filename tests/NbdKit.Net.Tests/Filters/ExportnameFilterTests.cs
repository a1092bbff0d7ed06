using NbdKit.Filters;
using NbdKit.Tests.Interop;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

// Below are the exports "a disk/with a path", "disk" and "größer", and no default.
public class ExportnameFilterTests
{
    private static NbdBackend Chain(ExportnameFilter filter) => NbdBackend.Compose(new ExportsPlugin(), filter);

    private static ExportnameFilter FromEntry(params (string Key, string Value)[] parameters)
        => (ExportnameFilter)ExportnameFilter.Entry.Create(
            new NbdParameters("exportname", parameters.Select(p => KeyValuePair.Create(p.Key, p.Value))));

    private static async Task<string[]> ListAsync(NbdBackend chain)
    {
        var exports = new ExportList();
        await (await StartedAsync(chain)).ListExportsAsync(exports, false, null, default);
        return [.. exports.Select(e => $"{e.Name}: {e.Description}")];
    }

    private static async Task<NbdBackend> StartedAsync(NbdBackend chain)
    {
        try
        {
            await using NextContext opened = await chain.OpenAsync("disk");
        }
        catch (NbdException)
        {
            // Only to start the chain.
        }
        return chain;
    }

    [Test]
    public async Task The_default_export_is_the_one_that_is_set()
    {
        await using NbdBackend chain = Chain(new ExportnameFilter { DefaultExport = "disk" });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((disk.ExportName, disk.Info.Size), Is.EqualTo(("disk", 512L)));
        await using NbdBackend plain = Chain(new ExportnameFilter { DefaultExport = "" });
        Assert.That(TestData.Failure(async () => await plain.OpenAsync()).Message, Does.Contain("no default export"));
    }

    [Test]
    public async Task Each_list_mode_lists_its_exports()
    {
        string[] names = ["x", ""];
        await using NbdBackend keep = Chain(new ExportnameFilter { Exports = names });
        Assert.That(await ListAsync(keep), Is.EqualTo(ExportsPlugin.Names.Select(n => $"{n}: the disk {n}")));
        await using NbdBackend empty = Chain(new ExportnameFilter { ListMode = ExportnameListMode.Empty });
        Assert.That(await ListAsync(empty), Is.Empty);
        await using NbdBackend given = Chain(new ExportnameFilter { ListMode = ExportnameListMode.Explicit, Exports = names });
        Assert.That(await ListAsync(given), Is.EqualTo(new[] { "x: ", ": " }));
        await using NbdBackend none = Chain(new ExportnameFilter { ListMode = ExportnameListMode.DefaultOnly });
        Assert.That(await ListAsync(none), Is.Empty);
        await using NbdBackend one = Chain(
            new ExportnameFilter { ListMode = ExportnameListMode.DefaultOnly, DefaultExport = "größer" });
        Assert.That(await ListAsync(one), Is.EqualTo(new[] { "größer: " }));
        await using NbdBackend error = Chain(new ExportnameFilter { ListMode = ExportnameListMode.Error });
        Assert.That(TestData.Failure(async () => await ListAsync(error)).Message, Does.Contain("not listed"));
    }

    [Test]
    public async Task Strictly_only_the_given_names_are_opened()
    {
        await using NbdBackend chain = Chain(
            new ExportnameFilter { Strictness = ExportnameStrictness.Explicit, Exports = ["disk"], DefaultExport = "disk" });
        await using (NextContext disk = await chain.OpenAsync("disk"))
        {
            Assert.That(disk.Info.Size, Is.EqualTo(512));
        }
        Assert.That(TestData.Failure(async () => await chain.OpenAsync("größer")).Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(TestData.Failure(async () => await chain.OpenAsync()).Error, Is.EqualTo(NbdError.InvalidArgument));
    }

    [Test]
    public async Task Strictly_the_default_is_opened_if_the_empty_name_is_given()
    {
        await using NbdBackend chain = Chain(
            new ExportnameFilter { Strictness = ExportnameStrictness.Explicit, Exports = [""], DefaultExport = "größer" });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(1_000_001));
        Assert.That(TestData.Failure(async () => await chain.OpenAsync("disk")).Error, Is.EqualTo(NbdError.InvalidArgument));
    }

    [Test]
    public async Task Strictness_may_follow_the_list_below()
    {
        await using NbdBackend chain = Chain(FromEntry(("exportname-strict", "listed"), ("exportname", "extra")));
        await using (NextContext disk = await chain.OpenAsync("größer"))
        {
            Assert.That(disk.Info.Size, Is.EqualTo(1_000_001));
        }
        Assert.That(TestData.Failure(async () => await chain.OpenAsync("other")).Message, Does.Contain("no export of this name"));
        Assert.That(TestData.Failure(async () => await chain.OpenAsync("extra")).Message, Does.Contain("no disk of this name"));
    }

    [Test]
    public async Task Descriptions_are_kept_dropped_fixed_or_made()
    {
        foreach ((string parameter, string? expected) in new (string, string?)[]
        {
            ("keep", "the disk disk"), ("none", null), ("fixed:all alike", "all alike"),
        })
        {
            await using NbdBackend chain = Chain(FromEntry(("exportdesc", parameter)));
            await using NextContext disk = await chain.OpenAsync("disk");
            Assert.That(disk.Info.Description, Is.EqualTo(expected));
            Assert.That((await ListAsync(chain))[1], Is.EqualTo($"disk: {expected}"));
        }
        await using NbdBackend made = Chain(new ExportnameFilter { Describe = (name, below, _) => new($"{name} = {below}") });
        await using NextContext opened = await made.OpenAsync("disk");
        Assert.That(opened.Info.Description, Is.EqualTo("disk = the disk disk"));
    }

    [Test]
    [Platform("Linux")]
    public async Task A_command_makes_descriptions_and_the_name_is_never_a_part_of_it()
    {
        await using NbdBackend chain = Chain(FromEntry(
            ("exportdesc", "script:echo \"<$name>\""), ("exportname-list", "explicit"), ("exportname", "$(id);\"'`id`")));
        Assert.That(await ListAsync(chain), Is.EqualTo(new[] { "$(id);\"'`id`: <$(id);\"'`id`>" }));
        await using NbdBackend failing = Chain(FromEntry(("exportdesc", "script:exit 3")));
        Assert.That(TestData.Failure(async () => await ListAsync(failing)).Message, Does.Contain("status 3"));
        await using NbdBackend endless = Chain(FromEntry(("exportdesc", "script:yes")));
        Assert.That(TestData.Failure(async () => await ListAsync(endless)).Message, Does.Contain("4096"));
    }

    [Test]
    public void Names_may_come_from_a_file()
    {
        using var folder = new ScratchDirectory();
        string path = folder.Write("names", "one\ntwo\n"u8.ToArray());
        Assert.That(
            FromEntry(("exportname", "zero"), ("exportname-file", path)).Exports, Is.EqualTo(new[] { "zero", "one", "two" }));
        Assert.That(() => FromEntry(("exportname-file", path + "x")), Throws.ArgumentException.With.Message.Contains("exportname-file="));
    }

    [Test]
    public void Wrong_settings_are_refused()
    {
        Assert.That(() => FromEntry(("exportdesc", "other")), Throws.ArgumentException.With.Message.Contains("exportdesc=other"));
        Assert.That(() => FromEntry(("exportname", new string('x', 5000))), Throws.InstanceOf<ArgumentException>());
        Assert.That(() => FromEntry(("exportdesc", "fixed:" + new string('x', 5000))), Throws.InstanceOf<ArgumentException>());
        Assert.That(() => FromEntry(("exportname-strict", "maybe")), Throws.ArgumentException);
    }
}
