using NbdKit.Client;
using NbdKit.Tests.Client;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>The public option mode.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class NbdHandshakeTests : HandshakeTest
{
    [Test]
    public async Task Exports_are_listed_with_their_descriptions()
    {
        var server = new ScriptedServer();
        server.Answer(
            Opt.List,
            [
                .. ScriptedServer.Server("größer", "the larger one"), .. ScriptedServer.Server(""),
                .. ScriptedServer.Server(new string('x', 4096), new string('y', 4096)), .. ScriptedServer.Reply(Opt.List, Rep.Ack),
            ]);
        await using NbdHandshake handshake = await BeginAsync(server);

        IReadOnlyList<NbdExport> exports = await handshake.ListAsync();

        Assert.That(
            exports,
            Is.EqualTo(new NbdExport[]
            {
                new("größer", "the larger one"), new(""), new(new string('x', 4096), new string('y', 4096)),
            }));
        Assert.That(server.Options[^1].Data, Is.Empty);
    }

    [Test, Property("Rule", "C021"), Property("Rule", "nbd_client_135"), Property("Threat", "nbd-client-aec764d")]
    public async Task Entries_of_the_list_must_fit_into_themselves_C021_nbd_client_135(
        [Values(0, 1, 2, 3, 4, 8)] int length, [Values(1u, 5u, 0x7fffffffu, 0x80000000u, 0xffffffffu)] uint name)
    {
        byte[] content = new WireBytes().U32(name).Zeroes(4).ToArray()[..length];
        var server = new ScriptedServer();
        server.Answer(Opt.List, [.. ScriptedServer.Reply(Opt.List, Rep.Server, content), .. ScriptedServer.Reply(Opt.List, Rep.Ack)]);
        await using NbdHandshake handshake = await BeginAsync(server);

        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => handshake.ListAsync())!;

        Assert.That(failure.Error, Is.EqualTo(NbdClientError.ProtocolViolation));
    }

    [Property("Rule", "C021"), Property("Threat", "nbd-client-aec764d")]
    [Property("Rule", "nbd_client_135")]
    [TestCase(4097, 0)]
    [TestCase(1, 4097)]
    [TestCase(1, 1 << 20)]
    public async Task Strings_of_the_list_have_4096_bytes_at_most_C021_nbd_client_135(int name, int description)
    {
        var server = new ScriptedServer();
        server.Answer(Opt.List, ScriptedServer.Server(new string('n', name), new string('d', description)));
        await using NbdHandshake handshake = await BeginAsync(server);

        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => handshake.ListAsync())!;

        Assert.That(failure.Error, Is.EqualTo(NbdClientError.ProtocolViolation));
    }

    [Test]
    public async Task An_export_is_described_without_being_opened()
    {
        var server = new ScriptedServer();
        server.Answer(
            Opt.Info,
            [
                .. ScriptedServer.BlockSizes(Opt.Info, 512, 4096, 1 << 20), .. ScriptedServer.Export(Opt.Info, 12345, 0x0dff),
                .. ScriptedServer.Info(Opt.Info, InfoType.Description, "a disk"u8),
                .. ScriptedServer.Info(Opt.Info, InfoType.Name, "real"u8), .. ScriptedServer.Reply(Opt.Info, Rep.Ack),
            ]);
        await using NbdHandshake handshake = await BeginAsync(server);

        NbdExportInfo readOnly = await handshake.InfoAsync("disk");

        Assert.That(server.Options[^2].Data, Is.EqualTo(
            WireBytes.InfoRequest("disk"u8, InfoType.BlockSize, InfoType.Name, InfoType.Description)));
        Assert.That(readOnly.Size, Is.EqualTo(12345));
        Assert.That(readOnly.BlockSize, Is.EqualTo(new BlockSize(512, 4096, 1 << 20)));
        Assert.That((readOnly.Description, readOnly.CanonicalName), Is.EqualTo(("a disk", "real")));
        Assert.That((readOnly.CanWrite, readOnly.CanTrim, readOnly.CanZero, readOnly.CanFua, readOnly.CanFastZero),
            Is.EqualTo((false, false, Support.None, Support.None, false)), "it is read-only");
        Assert.That((readOnly.CanFlush, readOnly.IsRotational, readOnly.CanMultiConn, readOnly.CanCache, readOnly.CanExtents),
            Is.EqualTo((true, true, true, Support.Native, true)));

        server.Answer(Opt.Info, [.. ScriptedServer.Export(Opt.Info, 1, 0x0dfd), .. ScriptedServer.Reply(Opt.Info, Rep.Ack)]);
        NbdExportInfo writable = await handshake.InfoAsync("disk");
        Assert.That((writable.CanWrite, writable.CanTrim, writable.CanZero, writable.CanFua, writable.CanFastZero),
            Is.EqualTo((true, true, Support.Native, Support.Native, true)));
    }

    [Test, Property("Rule", "C042")]
    public async Task Transmission_flags_that_are_unknown_or_not_valid_are_ignored_C042()
    {
        var server = new ScriptedServer();
        server.Answer(Opt.Info, [.. ScriptedServer.Export(Opt.Info, 1, 0xfffe), .. ScriptedServer.Reply(Opt.Info, Rep.Ack)]);
        await using NbdHandshake handshake = await BeginAsync(server);

        NbdExportInfo info = await handshake.InfoAsync("");

        Assert.That((info.CanWrite, info.CanFlush, info.CanTrim), Is.EqualTo((true, false, false)), "bit 0 is not set");
        Assert.That((await ConnectAsync(new ScriptedServer().Answer(
            Opt.Go, [.. ScriptedServer.Export(Opt.Go, 1, 0xffff), .. ScriptedServer.Reply(Opt.Go, Rep.Ack)]))).Size, Is.EqualTo(1));
    }

    [Test, Property("Rule", "C053")]
    public async Task Meta_contexts_are_listed_whatever_their_numbers_C053()
    {
        var server = new ScriptedServer();
        server.Answer(
            Opt.ListMeta,
            [
                .. ScriptedServer.Context(Opt.ListMeta, 5, "base:allocation"), .. ScriptedServer.Context(Opt.ListMeta, 5, "qemu:x"),
                .. ScriptedServer.Reply(Opt.ListMeta, Rep.Ack),
            ]);
        await using NbdHandshake handshake = await BeginAsync(server);

        Assert.That(await handshake.ListMetaContextsAsync("disk"), Is.EqualTo(["base:allocation", "qemu:x"]));
        Assert.That(server.Options[^1].Data, Is.EqualTo(WireBytes.MetaRequest("disk"u8)));
        await handshake.ListMetaContextsAsync("disk", ["qemu:"]);
        Assert.That(server.Options[^1].Data, Is.EqualTo(WireBytes.MetaRequest("disk"u8, "qemu:")));
        server.Answer(
            Opt.ListMeta,
            [.. ScriptedServer.Context(Opt.ListMeta, 5, "base:allocation"), .. ScriptedServer.Error(Opt.ListMeta, Rep.Unknown)]);
        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => handshake.ListMetaContextsAsync("disk"))!;
        Assert.That(failure.Error, Is.EqualTo(NbdClientError.ExportUnknown));
    }

    [Test, Property("Rule", "C053")]
    public async Task Meta_contexts_with_names_of_no_namespace_are_left_out_of_what_an_export_can_do_C053()
    {
        var server = new ScriptedServer();
        server.Answer(
            Opt.ListMeta,
            [
                .. ScriptedServer.Context(Opt.ListMeta, 1, "x:y"), .. ScriptedServer.Context(Opt.ListMeta, 2, "qemu:x"),
                .. ScriptedServer.Context(Opt.ListMeta, 3, "qemu:x"), .. ScriptedServer.Reply(Opt.ListMeta, Rep.Ack),
            ]);
        await using NbdHandshake handshake = await BeginAsync(server);

        NbdExportInfo info = await handshake.InfoAsync("");

        Assert.That(info.MetaContexts, Is.EqualTo(["qemu:x"]));
        Assert.That(info.CanExtents, Is.False, "it has no base:allocation");
        Assert.That(await handshake.ListMetaContextsAsync(""), Is.EqualTo(["x:y", "qemu:x", "qemu:x"]));
    }

    [Test]
    public async Task A_refusal_is_not_the_end()
    {
        var server = new ScriptedServer();
        server.Answer(Opt.List, ScriptedServer.Error(Opt.List, Rep.Policy, "not for you"));
        Func<byte[], byte[]?> good = server.Answers[Opt.Go];
        server.Answer(Opt.Go, ScriptedServer.Error(Opt.Go, Rep.Unknown));
        await using NbdHandshake handshake = await BeginAsync(server);

        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => handshake.ListAsync())!.Error, Is.EqualTo(NbdClientError.Refused));
        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => handshake.GoAsync("a", default))!.Error,
            Is.EqualTo(NbdClientError.ExportUnknown));
        server.Answer(Opt.Go, good);
        ClientSession session = await handshake.GoAsync("b", default);

        Assert.That(session.ExportName, Is.EqualTo("b"));
        Assert.ThrowsAsync<ObjectDisposedException>(() => handshake.ListAsync());
        await handshake.DisposeAsync();
        Assert.That(server.Trace, Does.Not.Contain(Opt.Abort), "the connection is the session's");
        await session.Transport.CloseAsync();
        await server.Ended.Soon();
    }

    [Test]
    public async Task Calls_come_one_by_one()
    {
        var server = new ScriptedServer();
        server.Answer(Opt.List, []);
        await using NbdHandshake handshake = await BeginAsync(server);
        Task<IReadOnlyList<NbdExport>> listing = handshake.ListAsync();

        Assert.ThrowsAsync<InvalidOperationException>(() => handshake.InfoAsync(""));
        await handshake.DisposeAsync().Soon();

        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => listing.Soon())!;
        Assert.That(failure.Error, Is.EqualTo(NbdClientError.ConnectionLost));
        await server.Ended.Soon();
        Assert.That(server.Trace, Does.Not.Contain(Opt.Abort));
    }

    [Test]
    public async Task A_server_without_options_can_be_asked_nothing()
    {
        var server = new ScriptedServer { HandshakeFlags = 2 };
        await using NbdHandshake handshake = await BeginAsync(server);

        foreach (Func<Task> call in new Func<Task>[]
        {
            () => handshake.ListAsync(), () => handshake.InfoAsync(""), () => handshake.ListMetaContextsAsync(""),
        })
        {
            Assert.That(
                Assert.ThrowsAsync<NbdClientException>(() => call())!.Error, Is.EqualTo(NbdClientError.Unsupported));
        }
        Assert.That(server.Options, Is.Empty);
    }

    [Test, Property("Rule", "C020")]
    public async Task Names_that_must_not_travel_are_refused_C020()
    {
        var server = new ScriptedServer();
        await using NbdHandshake handshake = await BeginAsync(server);

        foreach (string bad in new[] { "a\0b", "\ud800", new string('x', 4097) })
        {
            Assert.Throws<ArgumentException>(() => _ = handshake.InfoAsync(bad));
            Assert.Throws<ArgumentException>(() => _ = handshake.ListMetaContextsAsync(bad));
            Assert.Throws<ArgumentException>(() => _ = handshake.ListMetaContextsAsync("", [bad]));
        }
        Assert.That(server.Trace, Is.EqualTo([Opt.ExtendedHeaders, Opt.StructuredReply]));
    }
}
