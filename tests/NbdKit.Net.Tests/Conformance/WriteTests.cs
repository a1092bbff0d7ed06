using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_CACHE and NBD_CMD_WRITE_ZEROES.</summary>
public sealed class WriteTests : WireTest
{
    [Test, Property("Rule", "S205")]
    public async Task S205_Written_data_is_in_the_store_before_the_reply()
    {
        const int Seed = 205;
        var random = new Random(Seed);
        ServerFixture server = await ServeAsync(new TestExport(size: 300_000) { Before = async _ => await Task.Yield() });
        byte[] model = [.. server.Plugin.Data];
        WireClient writer = await server.TransmitAsync();
        WireClient reader = await server.TransmitAsync(structured: true);
        foreach (int length in new[] { 1, 511, 4096, 65_535, 65_536, 65_537, 200_000, 300_000 })
        {
            int offset = random.Next(300_000 - length + 1);
            byte[] data = new byte[length];
            random.NextBytes(data);
            data.CopyTo(model, offset);

            await writer.WriteDataAsync((ulong)offset, data);

            byte[] read = await reader.ReadDataAsync(0, 300_000);
            Assert.That(read.AsSpan().SequenceEqual(model), $"seed {Seed}: {length} at {offset}");
        }
    }

    [Test, Property("Rule", "S205")]
    public async Task S205_Writes_in_flight_keep_their_data_while_more_requests_arrive()
    {
        var gate = new Gate();
        var export = new TestExport(size: 5 << 20) { Before = _ => gate.PassAsync() };
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync();
        for (int i = 0; i < 60; i++)
        {
            byte[] data = new byte[i % 10 == 0 ? 70_000 : 700];
            data.AsSpan().Fill((byte)(i + 1));
            await client.SendRequestAsync(Cmd.Write, (ulong)(i * 80_000), (uint)data.Length, payload: data);
        }
        await gate.ArrivedAsync(60);

        gate.Open();

        for (int i = 0; i < 60; i++)
        {
            Assert.That((await client.ReadReplyAsync()).Error, Is.Zero);
        }
        for (int i = 0; i < 60; i++)
        {
            ReadOnlySpan<byte> written = export.Data.AsSpan(i * 80_000, i % 10 == 0 ? 70_000 : 700);
            Assert.That(written.IndexOfAnyExcept((byte)(i + 1)), Is.EqualTo(-1), $"write {i}");
        }
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S206"), Property("Rule", "S220")]
    public async Task S206_S220_A_failure_of_the_plugin_sets_the_error(bool structured)
    {
        ServerFixture server = await ServeAsync(
            new TestExport
            {
                Before = call => call.Op == PluginOp.Read ? default : throw new NbdException(NbdError.NoSpace, "full"),
            });
        byte[] before = [.. server.Plugin.Data];
        WireClient client = await server.TransmitAsync(structured: structured);

        await client.ExpectCallAsync(WireError.NoSpc, Cmd.Write, 0, 4, payload: [1, 2, 3, 4]);
        await client.ExpectCallAsync(WireError.NoSpc, Cmd.WriteZeroes, 0, 512);
        await client.ExpectCallAsync(WireError.NoSpc, Cmd.WriteZeroes, 0, 512, CmdFlag.NoHole | CmdFlag.Fua);
        await client.ExpectCallAsync(WireError.NoSpc, Cmd.Trim, 0, 512);
        await client.ExpectCallAsync(WireError.NoSpc, Cmd.Flush);
        await client.ExpectCallAsync(WireError.NoSpc, Cmd.Cache, 0, 512);

        await client.ExpectAliveAsync(before);
    }

    [Test, Property("Rule", "S211")]
    public async Task S211_TRIM_touches_nothing_outside_its_range()
    {
        ServerFixture server = await ServeAsync();
        byte[] before = [.. server.Plugin.Data];
        WireClient client = await server.TransmitAsync();

        await client.ExpectCallAsync(WireError.Ok, Cmd.Trim, 1000, 3000);

        Assert.That(server.Plugin.Data[..1000], Is.EqualTo(before[..1000]));
        Assert.That(server.Plugin.Data[4000..], Is.EqualTo(before[4000..]));
        PluginCall call = server.Plugin.Calls.Single();
        Assert.That((call.Op, call.Offset, call.Length), Is.EqualTo((PluginOp.Trim, 1000L, 3000L)));
        Assert.That(call.Flags, Is.EqualTo(RequestFlags.None));
    }

    [Test, Property("Rule", "S212")]
    public async Task S212_TRIM_that_was_not_advertised_is_invalid()
    {
        ServerFixture server = await ServeAsync(new TestExport { Configure = info => info with { CanTrim = false } });
        WireClient client = await server.TransmitAsync();
        Assert.That(client.Flags & TxFlag.SendTrim, Is.Zero);

        await client.ExpectCallAsync(WireError.Inval, Cmd.Trim, 0, 512);

        Assert.That(server.Plugin.Calls, Is.Empty);
    }

    [TestCase(CmdFlag.NoHole)]
    [TestCase(CmdFlag.Df)]
    [TestCase(CmdFlag.ReqOne)]
    [TestCase(CmdFlag.FastZero)]
    [Property("Rule", "S213")]
    public async Task S213_CACHE_rejects_flags_that_are_not_its_own(int flag)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync(structured: true);

        await client.ExpectCallAsync(WireError.Inval, Cmd.Cache, 0, 512, (ushort)flag);

        Assert.That(server.Plugin.Calls, Is.Empty);
    }

    [TestCase(Support.Native)]
    [TestCase(Support.Emulate)]
    [Property("Rule", "S214"), Property("Rule", "S211")]
    public async Task S214_S211_A_zeroed_range_reads_as_zeroes_and_nothing_around_it_changes(Support support)
    {
        const int Seed = 214;
        var random = new Random(Seed);
        ServerFixture server = await ServeAsync(
            new TestExport(size: 3 << 20) { Configure = info => info with { CanZero = support } });
        byte[] model = [.. server.Plugin.Data];
        WireClient client = await server.TransmitAsync();
        foreach (int length in new[] { 1, 2, 511, 512, 513, 4096, 70_001, (1 << 20) - 1, (1 << 20) + 1, 2 << 20 })
        {
            int offset = random.Next(model.Length - length);
            ushort flags = random.Next(2) == 0 ? CmdFlag.NoHole : CmdFlag.None;
            model.AsSpan(offset, length).Clear();

            await client.ExpectCallAsync(WireError.Ok, Cmd.WriteZeroes, (ulong)offset, (uint)length, flags);

            Assert.That(server.Plugin.Data.AsSpan().SequenceEqual(model), $"seed {Seed}: {length} at {offset}");
            byte[] read = await client.ReadDataAsync((ulong)offset, (uint)length);
            Assert.That(read.AsSpan().IndexOfAnyExcept((byte)0), Is.EqualTo(-1));
        }
    }

    [Test, Property("Rule", "S215"), Property("Rule", "S216")]
    public async Task S215_S216_NO_HOLE_forbids_the_plugin_to_trim_and_its_absence_allows_it()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.TransmitAsync();

        await client.ExpectCallAsync(WireError.Ok, Cmd.WriteZeroes, 0, 512, CmdFlag.NoHole);
        await client.ExpectCallAsync(WireError.Ok, Cmd.WriteZeroes, 0, 512);
        await client.ExpectCallAsync(WireError.Ok, Cmd.WriteZeroes, 0, 512, CmdFlag.NoHole | CmdFlag.Fua | CmdFlag.FastZero);

        Assert.That(server.Plugin.Calls.Select(call => call.Flags), Is.EqualTo(new[]
        {
            RequestFlags.None, RequestFlags.MayTrim, RequestFlags.Fua | RequestFlags.FastZero,
        }));
    }

    [Test, Property("Rule", "S217"), Property("Rule", "S218")]
    public async Task S217_S218_Emulated_zeroes_are_never_fast_and_a_fast_one_changes_nothing()
    {
        ServerFixture server = await ServeAsync(
            new TestExport { Size = 1 << 30, Configure = info => info with { CanZero = Support.Emulate } });
        byte[] before = [.. server.Plugin.Data];
        WireClient client = await server.TransmitAsync();
        Assert.That(client.Flags & TxFlag.SendFastZero, Is.Not.Zero);

        await client.ExpectCallAsync(WireError.NotSup, Cmd.WriteZeroes, 0, 1 << 30, CmdFlag.FastZero);

        Assert.That(server.Plugin.Calls, Is.Empty, "it was not even tried");
        Assert.That(server.Plugin.Data, Is.EqualTo(before));
        await client.ExpectCallAsync(WireError.Ok, Cmd.WriteZeroes, 0, 4096);
        Assert.That(server.Plugin.Data[..4096], Is.All.Zero);
    }

    [Test, Property("Rule", "S219")]
    public async Task S219_A_fast_zero_that_was_not_advertised_is_invalid()
    {
        ServerFixture server = await ServeAsync(new TestExport { Configure = info => info with { CanFastZero = false } });
        WireClient client = await server.TransmitAsync();
        Assert.That(client.Flags & TxFlag.SendFastZero, Is.Zero);

        await client.ExpectCallAsync(WireError.Inval, Cmd.WriteZeroes, 0, 512, CmdFlag.FastZero);

        Assert.That(server.Plugin.Calls, Is.Empty);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }
}
