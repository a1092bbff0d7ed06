using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>What NBD_REP_INFO tells: names, descriptions and block sizes ("Size constraints").</summary>
public sealed class InfoTypeTests : WireTest
{
    [Test, Property("Rule", "S095"), Property("Rule", "P06")]
    public async Task S095_P06_Each_information_type_is_told_once_however_often_it_was_asked_for()
    {
        ServerFixture server = await ServeAsync(new TestExport("disk") { Description = "a disk" });
        WireClient client = await server.HaggleAsync();

        OptionResult hundred = await client.InfoAsync(
            "disk", [.. Enumerable.Repeat(InfoType.Name, 100), .. Enumerable.Repeat(InfoType.Description, 100), 0, 0]);
        OptionResult most = await client.InfoAsync("disk", [.. Enumerable.Repeat(InfoType.Name, 65_000)]);

        Assert.That(
            hundred.Before.Select(reply => reply.InfoType),
            Is.EquivalentTo(new[] { InfoType.Export, InfoType.Name, InfoType.Description }));
        Assert.That(most.Before.Select(reply => reply.InfoType), Is.EquivalentTo(new[] { InfoType.Export, InfoType.Name }));
    }

    [Test, Property("Rule", "S096"), Property("Rule", "S097")]
    public async Task S096_S097_INFO_NAME_tells_the_name_that_LIST_shows_also_for_the_default_export()
    {
        ServerFixture server = await ServeAsync(
            new TestPlugin(new TestExport("a"), new TestExport("disk", 512)) { DefaultExport = "disk" });
        WireClient client = await server.HaggleAsync();
        OptionResult list = await client.OptAsync(Opt.List);

        OptionResult byDefault = await client.InfoAsync("", InfoType.Name);
        OptionResult byName = await client.InfoAsync("disk", InfoType.Name);

        Assert.That(list.Before.Select(reply => reply.ServerName), Does.Contain("disk"));
        Assert.That(byDefault.Info(InfoType.Name)!.InfoText, Is.EqualTo("disk"));
        Assert.That(byName.Info(InfoType.Name)!.InfoText, Is.EqualTo("disk"));
        Assert.That(byDefault.Size, Is.EqualTo(512));
        OptionResult go = await client.TryGoAsync("", InfoType.Name);
        Assert.That(go.Info(InfoType.Name)!.InfoText, Is.EqualTo("disk"));
    }

    [Test, Property("Rule", "S097")]
    public async Task S097_INFO_NAME_tells_the_canonical_name_of_an_export_that_has_one()
    {
        ServerFixture server = await ServeAsync(
            new TestExport("alias") { Configure = info => info with { CanonicalName = "real" } });
        WireClient client = await server.HaggleAsync();

        OptionResult info = await client.InfoAsync("alias", InfoType.Name);

        Assert.That(info.Info(InfoType.Name)!.InfoText, Is.EqualTo("real"));
    }

    [Test, Property("Rule", "S098")]
    public async Task S098_INFO_DESCRIPTION_is_the_description_of_LIST_and_left_out_if_there_is_none()
    {
        ServerFixture server = await ServeAsync(
            new TestPlugin(new TestExport("a") { Description = "the ä disk" }, new TestExport("b")));
        WireClient client = await server.HaggleAsync();
        OptionResult list = await client.OptAsync(Opt.List);

        OptionResult a = await client.InfoAsync("a", InfoType.Description);
        OptionResult b = await client.InfoAsync("b", InfoType.Description);

        Assert.That(list.Replies[0].ServerDescription, Is.EqualTo("the ä disk"));
        Assert.That(a.Info(InfoType.Description)!.InfoText, Is.EqualTo("the ä disk"));
        Assert.That(list.Replies[1].ServerDescription, Is.Empty);
        Assert.That(b.Info(InfoType.Description), Is.Null);
        Assert.That(b.IsAck);
    }

    [TestCase(1u, 512u, 512u)]
    [TestCase(512u, 4096u, 1u << 20)]
    [TestCase(65_536u, 65_536u, 32u << 20)]
    [TestCase(1u, 4096u, uint.MaxValue)]
    [Property("Rule", "S099"), Property("Rule", "S100"), Property("Rule", "S101"), Property("Rule", "S102")]
    [Property("Rule", "S004")]
    public async Task S099_S100_S101_S102_S004_Block_sizes_are_told_to_whoever_asks(uint minimum, uint preferred, uint maximum)
    {
        ServerFixture server = await ServeAsync(new TestExport
        {
            Configure = info => info with { BlockSize = new BlockSize(minimum, preferred, maximum) },
        });
        WireClient client = await server.HaggleAsync();

        OptionResult info = await client.InfoAsync("", InfoType.BlockSize);

        Assert.That(info.Info(InfoType.BlockSize)!.Data, Has.Length.EqualTo(14));
        (uint Minimum, uint Preferred, uint Maximum) told = info.BlockSize!.Value;
        Assert.That((told.Minimum, told.Preferred), Is.EqualTo((minimum, preferred)));
        Assert.That(told.Maximum, Is.EqualTo(maximum).Or.EqualTo(Math.Min(maximum, 32u << 20)));
    }

    [Test, Property("Rule", "S099"), Property("Rule", "S166")]
    public async Task S099_S166_Without_constraints_what_is_told_is_either_nothing_or_the_defaults()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        OptionResult info = await client.InfoAsync("", InfoType.BlockSize);

        Assert.That(info.IsAck);
        Assert.That(info.BlockSize?.Minimum, Is.Null.Or.EqualTo(1u));
        Assert.That(info.BlockSize?.Maximum, Is.Null.Or.GreaterThanOrEqualTo(32u << 20));
    }

    [TestCase(0, 512, 4096)]
    [TestCase(3, 512, 4096)]
    [TestCase(131_072, 131_072, 1 << 20)]
    [TestCase(1, 0, 4096)]
    [TestCase(1, 256, 4096)]
    [TestCase(1, 513, 4096)]
    [TestCase(4096, 512, 4096)]
    [TestCase(1, 4096, 512)]
    [TestCase(512, 512, 1000)]
    [TestCase(1, 512, 1L << 32)]
    [Property("Rule", "S100"), Property("Rule", "S101"), Property("Rule", "S102")]
    public void S100_S101_S102_Illegal_block_sizes_are_refused_where_they_are_made(
        long minimum, long preferred, long maximum)
        => Assert.That(
            () => new BlockSize(minimum, preferred, maximum), Throws.InstanceOf<ArgumentOutOfRangeException>());

    [Test, Property("Rule", "S091"), Property("Rule", "S104"), Property("Rule", "S164")]
    public async Task S091_S104_S164_Block_sizes_are_never_required_to_be_asked_for_but_are_enforced()
    {
        ServerFixture server = await ServeAsync(new TestExport
        {
            Configure = info => info with { BlockSize = new BlockSize(4096, 65_536, 1 << 20) },
        });
        WireClient asked = await server.HaggleAsync();
        WireClient unasked = await server.HaggleAsync();

        OptionResult with = await asked.TryGoAsync("", InfoType.BlockSize);
        OptionResult without = await unasked.TryGoAsync();

        Assert.That(with.IsAck && without.IsAck);
        Assert.That(with.BlockSize, Is.EqualTo((4096u, 65_536u, 1u << 20)));
        await unasked.ExpectCallAsync(WireError.Inval, Cmd.Read, 0, 512);
        await asked.ExpectCallAsync(WireError.Inval, Cmd.Read, 0, 512);
        Assert.That(await unasked.ReadDataAsync(4096, 4096), Is.EqualTo(server.Plugin.Data[4096..8192]));
    }

    [Test, Property("Rule", "S103")]
    public async Task S103_The_short_block_at_the_end_of_an_export_can_be_used()
    {
        ServerFixture server = await ServeAsync(new TestExport(size: 1000)
        {
            Configure = info => info with { BlockSize = new BlockSize(512, 512, 1 << 20) },
        });
        WireClient client = await server.TransmitAsync();
        Assert.That(client.Size, Is.EqualTo(1000));

        Assert.That(await client.ReadDataAsync(512, 488), Is.EqualTo(server.Plugin.Data[512..]));
        Assert.That(await client.ReadDataAsync(0, 1000), Is.EqualTo(server.Plugin.Data));
        await client.WriteDataAsync(512, new byte[488]);

        Assert.That(server.Plugin.Data[512..], Is.All.Zero);
        await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 0, 488);
        await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 513, 487);
    }
}
