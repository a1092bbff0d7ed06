using System.Text;
using NbdKit.Client;
using NbdKit.Tests.Client;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>NBD_OPT_GO, NBD_OPT_EXPORT_NAME and NBD_OPT_SET_META_CONTEXT, from the client's side.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ClientExportTests : HandshakeTest
{
    private static readonly byte[] Ack = ScriptedServer.Reply(Opt.Go, Rep.Ack);
    private static readonly byte[] Export = ScriptedServer.Export(Opt.Go, 4096, 5);

    [Test, Property("Rule", "C011"), Property("Rule", "C019")]
    public async Task A_server_without_GO_is_asked_by_name_C011_C019([Values] bool noZeroes)
    {
        var server = new ScriptedServer { HandshakeFlags = (ushort)(noZeroes ? 3 : 1) };
        server.Answer(Opt.Go, ScriptedServer.Error(Opt.Go, Rep.Unsup));
        server.Answer(Opt.ExportName, new WireBytes().U64(8192).U16(5).Zeroes(noZeroes ? 0 : 124).U32(0xabcd).ToArray());

        ClientSession session = await ConnectAsync(server, new NbdClientOptions { ExportName = "größer" });

        Assert.That(server.Trace.TakeLast(2), Is.EqualTo([Opt.Go, Opt.ExportName]));
        Assert.That(server.Options[^1].Data, Is.EqualTo(Encoding.UTF8.GetBytes("größer")));
        Assert.That((session.Size, (ushort)session.Flags), Is.EqualTo((8192L, (ushort)5)));
        // The reply was taken exactly: what follows is still there.
        byte[] next = new byte[4];
        await session.Transport.ReceiveAsync(next, CancellationToken.None);
        Assert.That(next, Is.EqualTo(new byte[] { 0, 0, 0xab, 0xcd }));
    }

    [Test, Property("Rule", "C019")]
    public async Task A_server_that_closes_instead_of_opening_by_name_has_no_such_export_unless_it_began_to_answer_C019(
        [Values(0, 1, 9, 133)] int bytes)
    {
        var server = new ScriptedServer { HandshakeFlags = 1, EndsAfterOpening = true };
        server.Answer(Opt.Go, ScriptedServer.Error(Opt.Go, Rep.Unsup));
        server.Answer(Opt.ExportName, new byte[bytes]);

        // A server that has begun to answer knows the export.
        await FailAsync(server, bytes == 0 ? NbdClientError.ExportUnknown : NbdClientError.ConnectionLost);

        Assert.That(server.Trace.Last(), Is.EqualTo(Opt.ExportName), "nothing can be said any more");
    }

    [Test, Property("Rule", "C012")]
    public async Task After_extended_headers_there_is_no_way_but_GO_C012()
    {
        var server = new ScriptedServer();
        server.Answer(Opt.ExtendedHeaders, ScriptedServer.Reply(Opt.ExtendedHeaders, Rep.Ack));
        server.Answer(Opt.Go, ScriptedServer.Error(Opt.Go, Rep.Unsup));

        await FailAsync(server, NbdClientError.Unsupported);

        Assert.That(server.Trace.TakeLast(2), Is.EqualTo([Opt.Go, Opt.Abort]));
    }

    [Test, Property("Rule", "C013")]
    public async Task Information_comes_in_any_order_and_what_is_unknown_is_ignored_C013([Range(0, 4)] int shift)
    {
        byte[][] infos =
        [
            ScriptedServer.Info(Opt.Go, 0x7777, 1, 2, 3),
            Export,
            ScriptedServer.Info(Opt.Go, InfoType.Name, "real"u8),
            ScriptedServer.Info(Opt.Go, InfoType.Description, "a disk"u8),
            ScriptedServer.BlockSizes(Opt.Go, 512, 4096, 1 << 20),
        ];
        var server = new ScriptedServer();
        server.Answer(Opt.Go, [.. infos[shift..].SelectMany(i => i), .. infos[..shift].SelectMany(i => i), .. Ack]);

        ClientSession session = await ConnectAsync(server);

        Assert.That(session.Size, Is.EqualTo(4096));
        Assert.That((ushort)session.Flags, Is.EqualTo(5));
        Assert.That(session.CanonicalName, Is.EqualTo("real"));
        Assert.That(session.Description, Is.EqualTo("a disk"));
        Assert.That(session.BlockSize, Is.EqualTo(new BlockSize(512, 4096, 1 << 20)));
    }

    [Test, Property("Rule", "C014")]
    public async Task An_export_without_a_size_is_none_C014()
    {
        var server = new ScriptedServer();
        server.Answer(Opt.Go, Ack);

        await FailAsync(server, NbdClientError.ProtocolViolation);
    }

    [Test, Property("Rule", "C014"), Property("Rule", "C021")]
    public async Task Information_of_a_wrong_length_is_an_error_C014_C021(
        [Values(InfoType.Export, InfoType.BlockSize)] ushort type, [Values(0, 1, 9, 11, 13, 100)] int length)
    {
        var server = new ScriptedServer();
        server.Answer(Opt.Go, [.. Export, .. ScriptedServer.Info(Opt.Go, type, new byte[length]), .. Ack]);

        await FailAsync(server, NbdClientError.ProtocolViolation);
    }

    [Test, Property("Rule", "C021")]
    public async Task Information_must_name_its_type_and_be_text_where_it_is_text_C021()
    {
        byte[][] wrong =
        [
            ScriptedServer.Reply(Opt.Go, Rep.Info), ScriptedServer.Reply(Opt.Go, Rep.Info, 0),
            ScriptedServer.Info(Opt.Go, InfoType.Name, 0xff), ScriptedServer.Info(Opt.Go, InfoType.Description, 65, 0),
            ScriptedServer.Info(Opt.Go, InfoType.Description, Enumerable.Repeat((byte)65, 4097).ToArray()),
        ];
        foreach (byte[] reply in wrong)
        {
            var server = new ScriptedServer();
            server.Answer(Opt.Go, [.. Export, .. reply, .. Ack]);

            await FailAsync(server, NbdClientError.ProtocolViolation);
        }
    }

    [Property("Rule", "C024"), Property("Rule", "CVE_2023_5215")]
    [TestCase(0x7fffffffffffffffu, true)]
    [TestCase(0x8000000000000000u, false)]
    [TestCase(0xfffffffffffffffeu, false)]
    [TestCase(0xffffffffffffffffu, false)]
    [Property("Threat", "CVE-2023-5215")]
    public async Task No_size_becomes_negative_C024_CVE_2023_5215(ulong size, bool possible)
    {
        foreach (bool byName in new[] { false, true })
        {
            var server = new ScriptedServer();
            server.Answer(Opt.Go, byName
                ? ScriptedServer.Error(Opt.Go, Rep.Unsup)
                : [.. ScriptedServer.Export(Opt.Go, size, 1), .. Ack]);
            server.Answer(Opt.ExportName, new WireBytes().U64(size).U16(1).ToArray());
            if (possible)
            {
                Assert.That((await ConnectAsync(server)).Size, Is.EqualTo(long.MaxValue));
            }
            else
            {
                await FailAsync(server, NbdClientError.Unsupported);
            }
        }
    }

    [Property("Rule", "C025")]
    [TestCase(0u, 4096u, 65536u)]
    [TestCase(3u, 4096u, 65536u)]
    [TestCase(131072u, 131072u, 131072u)]
    [TestCase(0x80000000u, 0x80000000u, 0x80000000u)]
    [TestCase(4096u, 512u, 65536u)]
    [TestCase(1u, 0u, 65536u)]
    [TestCase(1u, 4096u, 0u)]
    [TestCase(1u, 4096u, 511u)]
    [TestCase(4096u, 4096u, 512u)]
    public async Task Block_sizes_that_cannot_be_obeyed_are_refused_C025(uint minimum, uint preferred, uint maximum)
    {
        var server = new ScriptedServer();
        server.Answer(Opt.Go, [.. Export, .. ScriptedServer.BlockSizes(Opt.Go, minimum, preferred, maximum), .. Ack]);

        await FailAsync(server, NbdClientError.ProtocolViolation);
    }

    [Property("Rule", "C025")]
    [TestCase(1u, 3u, 0xffffffffu, 1, 512, 0xffffffff)]
    [TestCase(1u, 512u, 512u, 1, 512, 512)]
    [TestCase(512u, 5000u, 70000u, 512, 4096, 69632)]
    [TestCase(1u, 65536u, 1000u, 1, 512, 1000)]
    [TestCase(65536u, 65536u, 65536u, 65536, 65536, 65536)]
    [TestCase(4096u, 0x80000000u, 0xffffffffu, 4096, 32 << 20, 0xffffffff)]
    public async Task Block_sizes_that_are_only_odd_are_made_to_fit_C025(
        uint minimum, uint preferred, uint maximum, long least, long best, long most)
    {
        var server = new ScriptedServer();
        server.Answer(Opt.Go, [.. Export, .. ScriptedServer.BlockSizes(Opt.Go, minimum, preferred, maximum), .. Ack]);

        ClientSession session = await ConnectAsync(server);

        Assert.That(session.BlockSize, Is.EqualTo(new BlockSize(least, best, most)));
    }

    [Test, Property("Rule", "C016")]
    public async Task Without_block_sizes_requests_stay_within_what_every_server_takes_C016()
    {
        await using var server = new TransmissionServer(new TransmissionExport { Size = 1 << 30 });
        Task reading = server.Client.ReadAsync(new byte[100 << 20], 512).AsTask();

        List<WireRequest> requests = await server.NextAsync(4);

        Assert.That(requests.Select(r => (long)r.Length).Order(), Is.EqualTo(new long[] { 4 << 20, 32 << 20, 32 << 20, 32 << 20 }));
        Assert.That(requests.Select(r => r.Offset % 512), Is.All.Zero);
        await server.CloseAsync();
        Assert.ThrowsAsync<NbdClientException>(() => reading.Soon());
    }

    [Test, Property("Rule", "C021"), Property("Rule", "C053")]
    public async Task Meta_contexts_that_end_in_an_error_are_none_C021_C053()
    {
        var server = new ScriptedServer();
        server.Answer(
            Opt.SetMeta,
            [.. ScriptedServer.Context(Opt.SetMeta, 1, "base:allocation"), .. ScriptedServer.Error(Opt.SetMeta, Rep.Invalid)]);

        ClientSession session = await ConnectAsync(server);

        Assert.That(session.MetaContexts, Is.Empty);
    }

    [Test, Property("Rule", "C021")]
    public async Task Meta_contexts_without_a_name_or_with_a_number_or_a_name_twice_are_an_error_C021()
    {
        byte[][] wrong =
        [
            .. Enumerable.Range(0, 5).Select(length => ScriptedServer.Reply(Opt.SetMeta, Rep.MetaContext, new byte[length])),
            ScriptedServer.Reply(Opt.SetMeta, Rep.MetaContext, 0, 0, 0, 1, 0xff),
            [.. ScriptedServer.Context(Opt.SetMeta, 1, "a:b"), .. ScriptedServer.Context(Opt.SetMeta, 1, "a:c")],
            [.. ScriptedServer.Context(Opt.SetMeta, 1, "a:b"), .. ScriptedServer.Context(Opt.SetMeta, 2, "a:b")],
        ];
        foreach (byte[] replies in wrong)
        {
            var server = new ScriptedServer();
            server.Answer(Opt.SetMeta, [.. replies, .. ScriptedServer.Reply(Opt.SetMeta, Rep.Ack)]);

            await FailAsync(server, NbdClientError.ProtocolViolation);
        }
    }

    [Test, Property("Rule", "C054")]
    public async Task Meta_contexts_are_not_asked_for_without_the_replies_for_them_C054()
    {
        var server = new ScriptedServer();
        server.Answer(Opt.StructuredReply, ScriptedServer.Error(Opt.StructuredReply, Rep.Unsup));

        ClientSession session = await ConnectAsync(server);

        Assert.That(server.Trace, Does.Not.Contain(Opt.SetMeta));
        Assert.That(session.MetaContexts, Is.Empty);
    }
}
