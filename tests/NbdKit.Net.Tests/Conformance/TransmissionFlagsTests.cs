using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>The transmission flags, and that each of them tells the truth ("Transmission flags").</summary>
public sealed class TransmissionFlagsTests : WireTest
{
    [Test, Property("Rule", "S140"), Property("Rule", "S141"), Property("Rule", "S145"), Property("Rule", "S147")]
    public async Task S140_S141_S145_S147_Flags_follow_the_plugin_and_each_command_works_exactly_if_it_is_advertised()
    {
        var exports = new List<TestExport>();
        var expected = new List<ushort>();
        foreach ((NbdExportInfo info, ushort flags) in Matrix())
        {
            exports.Add(new TestExport($"{exports.Count}", 4096) { Configure = _ => info });
            expected.Add(flags);
        }
        ServerFixture server = await ServeAsync(new TestPlugin([.. exports]), new NbdServerOptions { MaxConnections = 1000 });
        for (int i = 0; i < exports.Count; i++)
        {
            WireClient client = await server.TransmitAsync($"{i}");
            Assert.That($"{client.Flags:x}", Is.EqualTo($"{expected[i]:x}"), exports[i].Info.ToString());
            await ExpectTruthAsync(client, exports[i].Info.ToString());
            await client.CutAsync();
        }
    }

    [Test, Property("Rule", "S142"), Property("Rule", "S175")]
    public async Task S142_S175_On_a_read_only_export_changes_are_not_permitted()
    {
        ServerFixture byServer = await ServeAsync(new TestPlugin(), new NbdServerOptions { ReadOnly = true });
        ServerFixture byPlugin = await ServeAsync(new TestExport { Configure = info => info with { CanWrite = false } });
        foreach (ServerFixture server in new[] { byServer, byPlugin })
        {
            byte[] before = [.. server.Plugin.Data];
            foreach (bool structured in new[] { false, true })
            {
                WireClient client = await server.TransmitAsync(structured: structured);
                Assert.That(client.Flags & TxFlag.ReadOnly, Is.Not.Zero);
                Assert.That(client.Flags & (TxFlag.SendTrim | TxFlag.SendWriteZeroes | TxFlag.SendFastZero), Is.Zero);

                await client.ExpectCallAsync(WireError.Perm, Cmd.Write, 0, 512, payload: new byte[512]);
                await client.ExpectCallAsync(WireError.Perm, Cmd.Trim, 0, 512);
                await client.ExpectCallAsync(WireError.Perm, Cmd.WriteZeroes, 0, 512);
                await client.ExpectCallAsync(WireError.Inval, Cmd.Resize, 512);
                await client.ExpectAliveAsync(before);
            }
            Assert.That(server.Plugin.Data, Is.EqualTo(before));
            Assert.That(server.Plugin.Calls.Select(call => call.Op), Has.All.EqualTo(PluginOp.Read));
        }
    }

    [Test, Property("Rule", "S143"), Property("Rule", "S200")]
    public async Task S143_S200_DF_is_served_exactly_if_it_is_advertised()
    {
        ServerFixture server = await ServeAsync();
        WireClient simple = await server.TransmitAsync();
        WireClient structured = await server.TransmitAsync(structured: true);

        Assert.That(simple.Flags & TxFlag.SendDf, Is.Zero);
        await simple.ExpectCallAsync(WireError.Inval, Cmd.Read, 0, 512, CmdFlag.Df);
        await simple.ExpectAliveAsync(server.Plugin.Data);
        Assert.That(structured.Flags & TxFlag.SendDf, Is.Not.Zero);
        Assert.That(await structured.ReadDataAsync(0, 512, CmdFlag.Df), Is.EqualTo(server.Plugin.Data[..512]));
    }

    [Test, Property("Rule", "S144"), Property("Rule", "S205")]
    public async Task S144_S205_What_one_connection_wrote_another_reads_once_it_was_answered()
    {
        ServerFixture server = await ServeAsync();
        WireClient a = await server.TransmitAsync();
        WireClient b = await server.TransmitAsync();
        WireClient c = await server.TransmitAsync();
        Assert.That(a.Flags & TxFlag.CanMultiConn, Is.Not.Zero);

        await a.WriteDataAsync(1000, [1, 2, 3]);
        Assert.That(await b.ReadDataAsync(1000, 3), Is.EqualTo(new byte[] { 1, 2, 3 }));
        await b.ExpectCallAsync(WireError.Ok, Cmd.Flush);

        Assert.That(await c.ReadDataAsync(1000, 3), Is.EqualTo(new byte[] { 1, 2, 3 }));
        Assert.That(server.Plugin.Count(PluginOp.Flush), Is.EqualTo(1));
    }

    [TestCase(ThreadModel.SerializeConnections, false)]
    [TestCase(ThreadModel.SerializeAllRequests, true)]
    [TestCase(ThreadModel.Parallel, true)]
    [Property("Rule", "S144")]
    public async Task S144_Multi_conn_is_not_advertised_where_only_one_connection_is_let_in(ThreadModel model, bool advertised)
    {
        ServerFixture server = await ServeAsync(new TestPlugin { ThreadModel = model });
        WireClient client = await server.TransmitAsync();

        Assert.That((client.Flags & TxFlag.CanMultiConn) != 0, Is.EqualTo(advertised));
    }

    [Test, Property("Rule", "S146"), Property("Rule", "S213")]
    public async Task S146_S213_CACHE_is_served_and_changes_nothing()
    {
        var native = new TestExport("native");
        var emulated = new TestExport("emulated") { Configure = info => info with { CanCache = Support.Emulate } };
        ServerFixture server = await ServeAsync(new TestPlugin(native, emulated));
        foreach (TestExport export in new[] { native, emulated })
        {
            byte[] before = [.. export.Data];
            WireClient client = await server.TransmitAsync(export.Name);
            Assert.That(client.Flags & TxFlag.SendCache, Is.Not.Zero);

            await client.ExpectCallAsync(WireError.Ok, Cmd.Cache, 512, 4096);

            Assert.That(export.Data, Is.EqualTo(before));
        }
        Assert.That(
            server.Plugin.Calls.Select(call => (call.Export, call.Op, call.Offset, call.Length)),
            Is.EqualTo(new[] { ("native", PluginOp.Cache, 512L, 4096L), ("emulated", PluginOp.Read, 512L, 4096L) }));
    }

    private static async Task ExpectTruthAsync(WireClient client, string what)
    {
        bool writable = (client.Flags & TxFlag.ReadOnly) == 0;
        bool zeroes = (client.Flags & TxFlag.SendWriteZeroes) != 0;
        bool fastZero = (client.Flags & TxFlag.SendFastZero) != 0;
        bool fua = (client.Flags & TxFlag.SendFua) != 0;
        bool trim = (client.Flags & TxFlag.SendTrim) != 0;
        await ExpectAsync(true, Cmd.Read, 512);
        await ExpectAsync(writable, Cmd.Write, 512, payload: new byte[512]);
        await ExpectAsync(writable && fua, Cmd.Write, 512, CmdFlag.Fua, new byte[512]);
        await ExpectAsync((client.Flags & TxFlag.SendFlush) != 0, Cmd.Flush, 0);
        await ExpectAsync(trim, Cmd.Trim, 512);
        await ExpectAsync(trim && fua, Cmd.Trim, 512, CmdFlag.Fua);
        await ExpectAsync(zeroes, Cmd.WriteZeroes, 512);
        await ExpectAsync(zeroes && fua, Cmd.WriteZeroes, 512, CmdFlag.NoHole | CmdFlag.Fua);
        await ExpectAsync((client.Flags & TxFlag.SendCache) != 0, Cmd.Cache, 512);
        WireReply fast = await client.CallAsync(Cmd.WriteZeroes, 0, 512, CmdFlag.FastZero);
        Assert.That(
            fast.Error,
            fastZero ? Is.Zero.Or.EqualTo(WireError.NotSup) : Is.EqualTo(WireError.Inval).Or.EqualTo(WireError.Perm), what);

        async Task ExpectAsync(bool works, ushort command, uint length, ushort flags = 0, byte[]? payload = null)
        {
            WireReply reply = await client.CallAsync(command, 0, length, flags, payload);
            bool refused = reply.Error == WireError.Inval || (reply.Error == WireError.Perm && !writable);
            Assert.That(works ? reply.Error == 0 : refused, $"{reply.Call}: {reply.Error} on {what}");
        }
    }

    // The rules of nbdkit for the flags, spelled out once more.
    private static IEnumerable<(NbdExportInfo Info, ushort Flags)> Matrix()
    {
        Support[] levels = [Support.None, Support.Emulate, Support.Native];
        for (int bits = 0; bits < 16; bits++)
        {
            foreach (Support zero in levels)
            {
                foreach (Support fua in levels)
                {
                    Support cache = levels[(bits + (int)zero + (int)fua) % 3];
                    var info = new NbdExportInfo
                    {
                        Size = 4096,
                        CanWrite = (bits & 1) != 0,
                        CanFlush = (bits & 2) != 0,
                        CanTrim = (bits & 4) != 0,
                        CanFastZero = (bits & 8) != 0,
                        CanZero = zero,
                        CanFua = fua,
                        CanCache = cache,
                        CanMultiConn = (bits & 3) == 3,
                        IsRotational = (bits & 5) == 5,
                    };
                    int flags = TxFlag.HasFlags
                        | (info.CanWrite ? 0 : TxFlag.ReadOnly)
                        | (info.CanFlush ? TxFlag.SendFlush : 0)
                        | (info.CanWrite && fua != Support.None ? TxFlag.SendFua : 0)
                        | (info.IsRotational ? TxFlag.Rotational : 0)
                        | (info.CanWrite && info.CanTrim ? TxFlag.SendTrim : 0)
                        | (info.CanWrite && zero != Support.None ? TxFlag.SendWriteZeroes : 0)
                        | (info.CanMultiConn ? TxFlag.CanMultiConn : 0)
                        | (cache != Support.None ? TxFlag.SendCache : 0)
                        | (info.CanWrite && zero != Support.None && info.CanFastZero ? TxFlag.SendFastZero : 0);
                    yield return (info, (ushort)flags);
                }
            }
        }
    }
}
