using System.Net.Security;
using System.Security.Authentication;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>"TLS support": NBD_OPT_STARTTLS, what it forgets and what it refuses.</summary>
public sealed class TlsTests : WireTest
{
    private static readonly NbdServerOptions Required = new() { Tls = new NbdServerTls(TestCertificates.Server) };

    private static readonly NbdServerOptions Selective = new()
    {
        Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = false },
    };

    [TestCase(1), TestCase(64 << 10), TestCase(1 << 20)]
    [Property("Rule", "S060"), Property("Rule", "P12")]
    [Property("Threat", "nbd-server-b689690")]
    [Property("Threat", "P12")]
    public async Task S060_P12_Starttls_with_data_is_invalid_and_upgrades_nothing(int length)
    {
        foreach (NbdServerOptions options in new[] { Required, Selective })
        {
            ServerFixture server = await ServeAsync(options: options);
            WireClient client = await server.HaggleAsync();
            await client.ExpectOptAsync(Rep.Invalid, Opt.StartTls, new byte[length]);
            await client.ExpectOptAsync(options == Required ? Rep.TlsRequired : Rep.Unsup, 0x5a5a5a5a);
            await (await client.StartTlsAsync()).GoAsync();
        }
    }

    [Test, Property("Rule", "S061"), Property("Rule", "X06")]
    [Property("Threat", "CVE-2021-3716"), Property("Threat", "nbdkit-6c5faac6")]
    [Property("Threat", "P23")]
    public async Task S061_X06_Nothing_negotiated_in_plain_text_survives_starttls()
    {
        ServerFixture server = await ServeAsync(options: Selective);
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        Assert.That((await client.SetMetaAsync("", "base:allocation")).IsAck);
        Assert.That((await client.OptAsync(Opt.List)).IsAck);
        Assert.That((await client.InfoAsync()).IsAck);
        await client.ExpectOptAsync(Rep.Ack, Opt.ExtendedHeaders);

        WireClient inside = await client.StartTlsAsync();
        Assert.That((await inside.OptAsync(Opt.List)).IsAck, "the exports can be listed again");
        await inside.GoAsync();

        Assert.That(server.Plugin.Opened - server.Plugin.Closed, Is.EqualTo(1), "what was opened in plain text was closed");
        Assert.That(inside.Flags & (TxFlag.SendDf | TxFlag.BlockStatusPayload), Is.Zero);
        Assert.That((await inside.ReadDataAsync(0, 512)).Length, Is.EqualTo(512), "as a simple reply");
        await inside.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
        await inside.ExpectAliveAsync(server.Plugin.Data);
        inside.Tap!.ExpectRecords();
    }

    [Test, Property("Rule", "S061")]
    [Property("Threat", "CVE-2021-3716")]
    public async Task S061_The_default_export_is_asked_for_anew_inside_tls()
    {
        var plugin = new DefaultByTlsPlugin();
        await using var server = new NbdServer(NbdBackend.Compose(plugin), Selective);
        var pipes = new PipePair();
        await using var client = new WireClient(pipes.Client, server.ServeAsync(pipes.Server));
        await client.GreetAsync();
        Assert.That((await client.InfoAsync("", InfoType.Name)).IsAck);
        Assert.That(plugin.Last, Is.EqualTo(("plain", false)));

        WireClient inside = await client.StartTlsAsync();
        await inside.GoAsync();

        Assert.That(plugin.Last, Is.EqualTo(("secret", true)));
    }

    [Test, Property("Rule", "S063")]
    public async Task S063_A_server_without_tls_never_says_that_it_is_required()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        for (uint option = 2; option < 13; option++)
        {
            OptionResult result = await client.OptAsync(option, option == Opt.StartTls ? [] : [0, 0, 0, 9, 1]);
            Assert.That(result.Type, Is.Not.EqualTo(Rep.TlsRequired));
            if (option == Opt.Abort)
            {
                client = await server.HaggleAsync();
            }
        }
    }

    [TestCase(true), TestCase(false)]
    [Property("Rule", "S064"), Property("Rule", "S065"), Property("Rule", "S066"), Property("Rule", "S071")]
    public async Task S064_S065_S066_S071_The_first_starttls_works_the_second_is_invalid_and_all_is_encrypted(bool required)
    {
        ServerFixture server = await ServeAsync(options: required ? Required : Selective);
        WireClient client = await server.HaggleAsync();

        WireClient inside = await client.StartTlsAsync();
        await inside.ExpectOptAsync(Rep.Invalid, Opt.StartTls);
        await inside.ExpectOptAsync(Rep.Invalid, Opt.StartTls, [1]);
        foreach (uint option in new[] { Opt.List, Opt.Info, Opt.StructuredReply, Opt.ListMeta, Opt.SetMeta, Opt.PeekExport, 0x7fffffffu })
        {
            OptionResult result = await inside.OptAsync(option, option is Opt.List or Opt.StructuredReply ? [] : [0, 0, 0, 9, 1]);
            Assert.That(result.Type, Is.Not.EqualTo(Rep.TlsRequired));
            inside.IsStructured |= option == Opt.StructuredReply;
        }
        await inside.GoAsync();
        await inside.ExpectAliveAsync(server.Plugin.Data);
        await inside.ExpectCallAsync(WireError.Inval, 99);

        inside.Tap!.ExpectRecords();
    }

    [Test, Property("Rule", "S065")]
    public async Task S065_Plain_text_after_the_ack_ends_the_connection()
    {
        ServerFixture server = await ServeAsync(options: Selective);
        WireClient client = await server.HaggleAsync();
        await client.ExpectOptAsync(Rep.Ack, Opt.StartTls);
        await client.SendOptionAsync(Opt.List);

        byte[] rest = await client.ReadToEndAsync();

        Assert.That(rest, Is.Empty.Or.ItemAt(0).EqualTo((byte)21), "at most an alert");
        await client.ExpectEndAsync(NbdDisconnectReason.TlsFailed);
    }

    [Test, Property("Rule", "S067"), Property("Rule", "P13")]
    public async Task S067_P13_Garbage_in_place_of_a_handshake_ends_the_connection()
    {
        byte[][] kinds =
        [
            [.. Enumerable.Repeat((byte)0x55, 16 << 10)],
            // A handshake record of 16 KiB that is no ClientHello.
            [22, 3, 1, 0x40, 0, .. Enumerable.Repeat((byte)0xee, 16 << 10)],
            // An alert, and application data, before any handshake.
            [21, 3, 3, 0, 2, 2, 40],
            [23, 3, 3, 0, 4, 1, 2, 3, 4],
        ];
        ServerFixture server = await ServeAsync(options: Required);
        foreach (byte[] garbage in kinds)
        {
            WireClient client = await server.HaggleAsync();
            await client.ExpectOptAsync(Rep.Ack, Opt.StartTls);
            await client.SendAsync(garbage);
            _ = await client.ReadToEndAsync();
            await client.ExpectEndAsync(NbdDisconnectReason.TlsFailed);
        }
        Assert.That(server.Plugin.Opened, Is.Zero);
    }

    [Test, Property("Rule", "S067"), Property("Rule", "P13")]
    public async Task S067_P13_A_client_that_leaves_in_the_handshake_is_gone()
    {
        ServerFixture server = await ServeAsync(options: Required);
        foreach (byte[] start in new byte[][] { [], [22], [22, 3, 1, 0, 100, 1] })
        {
            WireClient client = await server.HaggleAsync();
            await client.ExpectOptAsync(Rep.Ack, Opt.StartTls);
            await client.SendAsync(start);
            await client.FinishAsync();
            _ = await client.ReadToEndAsync();
            await client.ExpectEndAsync(NbdDisconnectReason.TlsFailed);
        }
    }

    [Test, Property("Rule", "S068"), Property("Rule", "S070")]
    [Property("Threat", "nbdkit-282c3b03"), Property("Threat", "CVE-2019-14850")]
    public async Task S068_S070_Where_tls_is_required_every_other_option_says_so_and_starttls_still_works()
    {
        ServerFixture server = await ServeAsync(
            options: new NbdServerOptions { Tls = new NbdServerTls(TestCertificates.Server), MaxOptions = 1000 });
        WireClient client = await server.HaggleAsync();
        foreach (uint option in Enumerable.Range(0, 13).Select(i => (uint)i).Append(0x7fffffffu))
        {
            if (option is Opt.ExportName or Opt.Abort or Opt.StartTls)
            {
                continue;
            }
            foreach (int length in new[] { 0, 1, 500, 200 << 10 })
            {
                await client.ExpectOptAsync(Rep.TlsRequired, option, new byte[length]);
            }
            await client.ExpectOptAsync(Rep.TlsRequired, option, WireBytes.InfoRequest([], 0, 3));
        }
        await (await client.StartTlsAsync()).GoAsync();
        Assert.That(server.Plugin.Opened, Is.EqualTo(1), "nothing is opened in plain text");
    }

    [Test, Property("Rule", "S069"), Property("Rule", "S013")]
    public async Task S069_S013_Where_tls_is_required_export_name_and_old_clients_are_cut_off()
    {
        ServerFixture server = await ServeAsync(options: Required);
        WireClient client = await server.HaggleAsync();
        await client.SendOptionAsync(Opt.ExportName);
        await client.ExpectGoneAsync(NbdDisconnectReason.TlsRequired);

        WireClient old = await server.HaggleAsync(clientFlags: 0);
        await old.ExpectGoneAsync(NbdDisconnectReason.TlsRequired);

        WireClient selective = await (await ServeAsync(options: Selective)).HaggleAsync(clientFlags: 0);
        await selective.ExpectOptAsync(Rep.Invalid, Opt.StartTls);
        Assert.That(server.Plugin.Opened, Is.Zero);
    }

    [TestCase(SslProtocols.Tls12), TestCase(SslProtocols.Tls13)]
    [Property("Rule", "S077"), Property("Rule", "S078")]
    public async Task S077_S078_Both_versions_work(SslProtocols version)
    {
        ServerFixture server = await ServeAsync(options: Required);
        WireClient client = await server.HaggleAsync();
        WireClient inside = await client.StartTlsAsync(TestCertificates.Client(protocols: version));
        Assert.That(inside.Tls!.SslProtocol, Is.EqualTo(version));
        await inside.GoAsync();
        await inside.ExpectAliveAsync(server.Plugin.Data);
    }

    [TestCase(0x0301), TestCase(0x0302)]
    [Property("Rule", "S078"), Property("Rule", "P13")]
    public async Task S078_P13_Older_versions_are_refused(int version)
    {
        ServerFixture server = await ServeAsync(options: Required);
        WireClient client = await server.HaggleAsync();
        await client.ExpectOptAsync(Rep.Ack, Opt.StartTls);
        // A ClientHello of that version: random, no session, two cipher suites, no compression, no extensions.
        byte[] hello =
        [
            (byte)(version >> 8), (byte)version, .. Enumerable.Repeat((byte)7, 32), 0, 0, 4, 0xc0, 0x0a, 0, 0x2f, 1, 0,
        ];
        await client.SendAsync(new byte[] { 22, 3, 1, 0, (byte)(hello.Length + 4), 1, 0, 0, (byte)hello.Length }.Concat(hello).ToArray());

        byte[] rest = await client.ReadToEndAsync();

        Assert.That(rest, Is.Empty.Or.ItemAt(0).EqualTo((byte)21), "at most an alert");
        await client.ExpectEndAsync(NbdDisconnectReason.TlsFailed);
        Assert.That(
            () => new NbdServerTls(new SslServerAuthenticationOptions
            {
                ServerCertificate = TestCertificates.Server,
                EnabledSslProtocols = (SslProtocols)0x300,
            }),
            Throws.ArgumentException.With.Message.Contains("TLS 1.2"));
    }

    [Test, Property("Rule", "S079")]
    public void S079_With_a_certificate_tls_is_required_unless_said_otherwise()
        => Assert.That(new NbdServerTls(TestCertificates.Server).IsRequired);

    [Test, Property("Rule", "S080"), Property("Rule", "N01"), Property("Rule", "P12")]
    [Property("Threat", "CVE-2011-0411")]
    [Property("Threat", "P12"), Property("Threat", "N01")]
    public async Task S080_N01_P12_Nothing_behind_starttls_is_ever_acted_on()
    {
        byte[][] injected =
        [
            WireBytes.Option(Opt.StructuredReply, []), WireBytes.Option(Opt.Go, WireBytes.InfoRequest([])), [0x49],
            WireBytes.Option(Opt.StartTls, []), WireBytes.Option(Opt.Abort, []),
        ];
        ServerFixture server = await ServeAsync(options: Selective);
        foreach (byte[] bytes in injected)
        {
            WireClient client = await server.HaggleAsync();
            await client.SendAsync((byte[])[.. WireBytes.Option(Opt.StartTls, []), .. bytes]);
            await client.FinishAsync();

            byte[] answer = await client.ReadToEndAsync();

            Assert.That(answer, Is.Empty, "not even the wish for TLS is granted");
            await client.ExpectEndAsync(NbdDisconnectReason.ProtocolViolation);
        }
        Assert.That(server.Plugin.Opened, Is.Zero);
    }

    [Test, Property("Rule", "S081"), Property("Rule", "P13")]
    public async Task S081_P13_A_client_that_stalls_in_the_tls_handshake_is_cut_off_in_time()
    {
        var time = new FakeTimeProvider();
        ServerFixture server = await ServeAsync(options: Required with { TimeProvider = time });
        WireClient client = await server.HaggleAsync();
        await client.ExpectOptAsync(Rep.Ack, Opt.StartTls);
        await client.SendAsync(new byte[] { 22, 3, 1, 0, 200, 1, 0, 0 });

        await time.AdvanceUntilAsync(client.Ended);

        await client.ExpectEndAsync(NbdDisconnectReason.Timeout);
    }

    [Test, Property("Rule", "S044"), Property("Rule", "S047")]
    [Property("Threat", "qemu-abort-before-tls")]
    public async Task S044_S047_Abort_is_acknowledged_in_plain_text_where_tls_is_required_and_inside_tls()
    {
        foreach (NbdServerOptions options in new[] { Required, Selective })
        {
            ServerFixture server = await ServeAsync(options: options);
            WireClient plain = await server.HaggleAsync();
            await plain.ExpectOptAsync(Rep.Ack, Opt.Abort);
            await plain.ExpectGoneAsync(NbdDisconnectReason.ClientDone);

            WireClient inside = await (await server.HaggleAsync()).StartTlsAsync();
            await inside.ExpectOptAsync(Rep.Ack, Opt.Abort);
            await inside.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        }
    }

    private sealed class DefaultByTlsPlugin : INbdPlugin
    {
        private readonly TestPlugin _inner = new(new TestExport("plain"), new TestExport("secret"));

        public (string Name, bool IsTls) Last { get; private set; }

        public string Name => "by-tls";

        public ThreadModel ThreadModel => ThreadModel.Parallel;

        public ValueTask<string?> DefaultExportAsync(
            bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
            => new(connection is { IsTls: true } ? "secret" : "plain");

        public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        {
            Last = (context.ExportName, context.IsTls);
            return _inner.OpenAsync(context, cancellationToken);
        }
    }
}
