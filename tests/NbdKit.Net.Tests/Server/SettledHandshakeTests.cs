using System.Net.Security;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>The transmission phase alone, for peers with a handshake of their own.</summary>
public sealed class SettledHandshakeTests : WireTest
{
    private const TransmissionFlags Kernel = TransmissionFlags.SendFlush | TransmissionFlags.SendTrim | TransmissionFlags.SendFua;

    private static readonly string[] Base = [ExtentList.BaseAllocation];

    private static WireClient Serve(ServerFixture server, NbdTransmission negotiated)
    {
        var pipes = new PipePair();
        return new WireClient(pipes.Client, server.Server.ServeTransmissionAsync(pipes.Server, negotiated))
        {
            IsStructured = negotiated.StructuredReplies || negotiated.ExtendedHeaders,
            IsExtended = negotiated.ExtendedHeaders,
            ContextIds = [.. Enumerable.Range(1, negotiated.MetaContexts.Count).Select(id => (uint)id)],
        };
    }

    private static async Task LeaveAsync(WireClient client)
    {
        await client.SendRequestAsync(Cmd.Disc);
        await client.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
    }

    [Test]
    public async Task Replies_are_simple_unless_something_else_was_settled()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = Serve(server, new NbdTransmission());

        Assert.That(await client.ReadDataAsync(512, 4096), Is.EqualTo(server.Plugin.Data[512..4608]));
        await client.WriteDataAsync(0, [1, 2, 3]);
        Assert.That(server.Plugin.Data[..3], Is.EqualTo(new byte[] { 1, 2, 3 }));
        await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 0, 512, CmdFlag.Df);
        await client.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
        await client.ExpectAliveAsync(server.Plugin.Data);
        await LeaveAsync(client);
        Assert.That(server.Log.Entries.Select(entry => entry.Text), Has.Some.Contains("opened export ''"));
    }

    [TestCase(false), TestCase(true)]
    public async Task Chunks_and_meta_contexts_are_numbered_as_settled(bool extended)
    {
        ServerFixture server = await ServeAsync(new TestExport("disk", 64 << 10)
        {
            Configure = info => info with { MetaContexts = ["x-a:other", ExtentList.BaseAllocation] },
            Extents = (call, list) => list.Add(
                0, 64 << 10, list.MetaContext == "x-a:other" ? (ExtentStatus)7 : ExtentStatus.Hole | ExtentStatus.Zero),
        });
        WireClient client = Serve(server, new NbdTransmission
        {
            ExportName = "disk",
            StructuredReplies = !extended,
            ExtendedHeaders = extended,
            MetaContexts = [ExtentList.BaseAllocation, "x-a:other"],
        });

        Assert.That(await client.ReadDataAsync(512, 4096, CmdFlag.Df), Is.EqualTo(server.Plugin.Data[512..4608]));
        await client.WriteDataAsync(0, [4, 5]);
        WireReply status = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 64 << 10);
        Assert.That(status.Contexts[1].Single().Status, Is.EqualTo(3ul));
        Assert.That(status.Contexts[2].Single().Status, Is.EqualTo(7ul));
        await LeaveAsync(client);
    }

    [TestCase(false), TestCase(true)]
    public async Task Beyond_the_size_that_the_peer_was_told_there_is_nothing(bool structured)
    {
        ServerFixture server = await ServeAsync(new TestExport("", 64 << 10)
        {
            Extents = (_, list) => list.Add(0, 64 << 10, ExtentStatus.Data),
        });
        WireClient client = Serve(server, new NbdTransmission
        {
            Size = 10_000,
            StructuredReplies = structured,
            MetaContexts = structured ? Base : [],
        });

        Assert.That(await client.ReadDataAsync(9_000, 1_000), Is.EqualTo(server.Plugin.Data[9_000..10_000]));
        await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 10_000, 1);
        await client.ExpectCallAsync(WireError.NoSpc, Cmd.Write, 9_999, 2, 0, [1, 2]);
        await client.ExpectCallAsync(WireError.NoSpc, Cmd.WriteZeroes, 10_000, 512);
        await client.ExpectCallAsync(WireError.Inval, Cmd.Trim, 0, 10_001);
        await client.ExpectCallAsync(WireError.Inval, Cmd.Cache, 9_999, 2);
        if (structured)
        {
            WireReply cut = await client.CallAsync(Cmd.Read, 9_000, 2_000);
            Assert.That(cut.Error, Is.EqualTo(WireError.Inval));
            WireReply status = await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 10_000);
            Assert.That(status.Contexts[1].Sum(extent => (long)extent.Length), Is.EqualTo(10_000));
        }
        Assert.That(server.Plugin.Calls.All(call => call.Offset + call.Length <= 10_000), "nothing beyond reached the layer");
        Assert.That(server.Plugin.Data[9_999..10_001], Is.EqualTo(TestExport.Pattern(64 << 10)[9_999..10_001]));
        await LeaveAsync(client);
    }

    [Test]
    public async Task What_the_flags_do_not_offer_is_refused()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = Serve(server, new NbdTransmission { Flags = Kernel });

        await client.WriteDataAsync(0, [1], CmdFlag.Fua);
        await client.ExpectCallAsync(WireError.Ok, Cmd.Flush);
        await client.ExpectCallAsync(WireError.Ok, Cmd.Trim, 0, 512);
        await client.ExpectCallAsync(WireError.Inval, Cmd.WriteZeroes, 0, 512);
        await client.ExpectCallAsync(WireError.Inval, Cmd.Cache, 0, 512);
        await LeaveAsync(client);

        WireClient reader = Serve(server, new NbdTransmission { Flags = Kernel | TransmissionFlags.ReadOnly });
        await reader.ExpectCallAsync(WireError.Perm, Cmd.Write, 0, 1, 0, [1]);
        await reader.ExpectCallAsync(WireError.Perm, Cmd.Trim, 0, 512);
        await reader.ExpectAliveAsync(server.Plugin.Data);
        await LeaveAsync(reader);
    }

    private static IEnumerable<TestCaseData> TooMuch()
    {
        yield return Case(new() { Size = (64 << 10) + 1 }, "65537 bytes; the export has 65536");
        yield return Case(new() { Size = 1000 }, "whole blocks of 512 bytes");
        yield return Case(new() { Flags = TransmissionFlags.SendTrim }, "SendTrim");
        yield return Case(new() { Flags = TransmissionFlags.SendFlush | TransmissionFlags.SendDf }, "SendDf");
        yield return Case(new() { Flags = (TransmissionFlags)(1 << 15) }, "32768");
        yield return Case(new() { MetaContexts = Base }, "without structured replies");
        yield return Case(new() { StructuredReplies = true, MetaContexts = ["y:unknown"] }, "'y:unknown'");
        yield return Case(new() { StructuredReplies = true, MetaContexts = ["x-a:wide"] }, "'x-a:wide'");
        yield return Case(new() { Opened = (it, _, _) => new(it with { Size = 1 << 20 }) }, "the export has 65536");
        yield return Case(new() { Opened = (it, _, _) => new(it with { ExportName = "other" }) }, "changed the export");
        yield return Case(new() { Opened = (_, _, _) => new((NbdTransmission)null!) }, "settled nothing");

        static TestCaseData Case(NbdTransmission negotiated, string expected)
            => new TestCaseData(negotiated, expected).SetArgDisplayNames(expected);
    }

    [TestCaseSource(nameof(TooMuch))]
    public async Task More_than_the_export_has_is_refused_before_a_byte_is_exchanged(NbdTransmission negotiated, string expected)
    {
        NbdDisconnect? end = null;
        ServerFixture server = await ServeAsync(
            new TestExport
            {
                Configure = info => info with
                {
                    CanTrim = false,
                    BlockSize = new BlockSize(512, 4096),
                    MetaContexts = [ExtentList.BaseAllocation, "x-a:wide"],
                    WideMetaContexts = ["x-a:wide"],
                },
            },
            new NbdServerOptions { Disconnected = (_, how) => end = how });
        var pipes = new PipePair();
        Task<NbdDisconnect> served = server.Server.ServeTransmissionAsync(pipes.Server, negotiated);
        await using var client = new WireClient(pipes.Client, served);

        Assert.That(async () => await served.WaitAsync(WireClient.Deadline), Throws.ArgumentException.With.Message.Contains(expected));
        Assert.That(await client.ReadToEndAsync(), Is.Empty);
        Assert.That(end?.Reason, Is.EqualTo(NbdDisconnectReason.HandshakeFailed));
        Assert.That(end!.Detail, Does.Contain(expected));
    }

    [Test]
    public async Task A_read_only_export_is_not_to_be_announced_as_writable()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { ReadOnly = true });
        Assert.That(
            async () => await server.Server.ServeTransmissionAsync(
                new PipePair().Server, new NbdTransmission { Flags = TransmissionFlags.HasFlags }).WaitAsync(WireClient.Deadline),
            Throws.ArgumentException.With.Message.Contains("read-only"));
    }

    [Test]
    public async Task The_host_learns_what_to_tell_and_tells_it_over_the_same_connection()
    {
        ServerFixture server = await ServeAsync(new TestExport("disk", 32 << 10) { Description = "a disk" });
        var pipes = new PipePair();
        var client = new WireClient(pipes.Client, server.Server.ServeTransmissionAsync(pipes.Server, new NbdTransmission
        {
            ExportName = "disk",
            Opened = async (offered, info, cancellationToken) =>
            {
                Assert.That(info.Description, Is.EqualTo("a disk"));
                await pipes.Server.Output.WriteAsync(
                    new WireBytes().U64((ulong)offered.Size!.Value).U16((ushort)offered.Flags!.Value).ToArray(), cancellationToken);
                return offered with { StructuredReplies = true };
            },
        }))
        { IsStructured = true };

        byte[] told = await client.ReadAsync(10);
        Assert.That(told[..8], Is.EqualTo(new WireBytes().U64(32 << 10).ToArray()));
        Assert.That(told[9] & TxFlag.HasFlags, Is.EqualTo(TxFlag.HasFlags));
        await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 0, 512, CmdFlag.Df);
        Assert.That(await client.ReadDataAsync(0, 512), Is.EqualTo(server.Plugin.Data[..512]));
        await LeaveAsync(client);
    }

    [Test]
    public async Task What_the_hosts_handshake_throws_is_the_hosts()
    {
        ServerFixture server = await ServeAsync();
        Assert.That(
            async () => await server.Server.ServeTransmissionAsync(new PipePair().Server, new NbdTransmission
            {
                Opened = (_, _, _) => throw new IOException("the peer is gone"),
            }).WaitAsync(WireClient.Deadline),
            Throws.TypeOf<IOException>().With.Message.EqualTo("the peer is gone"));
        await Serve(server, new NbdTransmission()).ExpectAliveAsync(null);
    }

    [Test]
    public async Task The_hosts_handshake_has_the_time_of_a_handshake()
    {
        var time = new FakeTimeProvider();
        var begun = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { TimeProvider = time });
        WireClient client = Serve(server, new NbdTransmission
        {
            Opened = async (offered, _, cancellationToken) =>
            {
                begun.SetResult();
                await Task.Delay(Timeout.Infinite, cancellationToken);
                return offered;
            },
        });
        await begun.Task.WaitAsync(WireClient.Deadline);
        time.Advance(TimeSpan.FromSeconds(11));

        await client.ExpectEndAsync(NbdDisconnectReason.Timeout);
    }

    [Test]
    public async Task Layers_may_refuse_as_in_any_handshake()
    {
        ServerFixture server = await ServeAsync(new TestExport("disk"));
        NbdDisconnect end = await Serve(server, new NbdTransmission { ExportName = "none" })
            .ExpectGoneAsync(NbdDisconnectReason.ExportUnavailable);
        Assert.That(end.Detail, Does.Contain("there is no export 'none'"));

        var time = new FakeTimeProvider();
        var opening = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        ServerFixture slow = await ServeAsync(
            new TestPlugin
            {
                OnOpen = async (_, cancellationToken) =>
                {
                    opening.SetResult();
                    await Task.Delay(Timeout.Infinite, cancellationToken);
                },
            },
            new NbdServerOptions { TimeProvider = time });
        WireClient client = Serve(slow, new NbdTransmission());
        await opening.Task.WaitAsync(WireClient.Deadline);
        time.Advance(TimeSpan.FromSeconds(31));
        Assert.That((await client.ExpectGoneAsync(NbdDisconnectReason.ExportUnavailable)).Detail, Does.Contain("took too long"));
    }

    [Test]
    public async Task Hooks_limits_and_the_hosts_token_count()
    {
        var seen = new List<string>();
        ServerFixture server = await ServeAsync(options: new NbdServerOptions
        {
            MaxConnections = 1,
            Connected = connection => seen.Add($"connected {connection.Id}"),
            ExportOpened = (_, info) => seen.Add($"opened {info.Size}"),
            Disconnected = (_, end) => seen.Add($"{end.Reason}"),
        });
        using var cut = new CancellationTokenSource();
        var pipes = new PipePair();
        var client = new WireClient(
            pipes.Client, server.Server.ServeTransmissionAsync(pipes.Server, new NbdTransmission { Size = 4096 }, cut.Token));
        await client.ReadDataAsync(0, 512);
        await Serve(server, new NbdTransmission()).ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
        cut.Cancel();
        await client.ExpectGoneAsync(NbdDisconnectReason.ServerStopped);

        Assert.That(seen, Is.EqualTo(new[] { "connected 1", "opened 4096", "ServerStopped" }));
    }

    [Test]
    public async Task A_layer_may_refuse_the_peer_before_the_host_tells_it_anything()
    {
        var hooks = new Hooks { Preconnect = (_, _, _) => throw new NbdException(NbdError.PermissionDenied, "not you") };
        await using var server = new NbdServer(NbdBackend.Compose(new TestPlugin(), new HookFilter(hooks)));
        bool called = false;
        NbdDisconnect end = await server.ServeTransmissionAsync(new PipePair().Server, new NbdTransmission
        {
            Opened = (offered, _, _) =>
            {
                called = true;
                return new(offered);
            },
        }).WaitAsync(WireClient.Deadline);
        Assert.That((end.Reason, called), Is.EqualTo((NbdDisconnectReason.Refused, false)));
    }

    [Test]
    public async Task Where_TLS_is_required_plain_text_is_refused()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = true } });
        await Serve(server, new NbdTransmission()).ExpectGoneAsync(NbdDisconnectReason.TlsRequired);
        ServerFixture selective = await ServeAsync(
            new TestPlugin(new TestExport("open"), new TestExport("secret")),
            new NbdServerOptions
            {
                Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = false, AllowsPlainText = name => name == "open" },
            });
        await Serve(selective, new NbdTransmission { ExportName = "secret" }).ExpectGoneAsync(NbdDisconnectReason.TlsRequired);
        await Serve(selective, new NbdTransmission { ExportName = "open" }).ExpectCallAsync(WireError.Ok, Cmd.Read, 0, 512);
        Assert.That(server.Plugin.Opened, Is.Zero);
        Assert.That(
            () => server.Server.ServeTransmissionAsync(new SslStream(new DuplexPipeStream(new PipePair().Server)), new NbdTransmission()),
            Throws.ArgumentException.With.Message.Contains("TLS is not established"));
    }
}
