using System.Net;
using System.Runtime.InteropServices;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

/// <summary>The parameters of the nbd plugin, and what it makes of another server.</summary>
public sealed class NbdPluginTests
{
    private readonly NbdCatalogue _catalogue = new();

    [TestCase("socket=/tmp/a", "port=5", "port=")]
    [TestCase("uri=nbd://host/", "export=x", "export=")]
    [TestCase("hostname=host", "port=0", "port")]
    [TestCase("hostname=host", "port=x", "not a number")]
    [TestCase("hostname=host", "socket=/tmp/a", "exactly one")]
    [TestCase("hostname=host", "connections=0", "connections=")]
    [TestCase("hostname=host", "tls=maybe", "tls=maybe")]
    [TestCase("socket-fd=9", "shared=false", "socket-fd=")]
    [TestCase("socket-fd=9", "dynamic-export=true", "dynamic-export=true")]
    [TestCase("dynamic-export=true", "export=x", "exactly one")]
    [TestCase("uri=http://host/", "retry=1", "uri=http://host/")]
    [TestCase("retry=1", "shared=true", "exactly one")]
    public void Parameters_that_do_not_fit_are_named(string first, string second, string named)
    {
        ArgumentException failure = Assert.Throws<ArgumentException>(() => Make(first, second))!;
        Assert.That(failure.Message, Does.Contain(named).And.StartsWith("nbd"));
    }

    [Test]
    public void Parameters_become_settings()
    {
        NbdPlugin tcp = Make("hostname=example.com", "port=99", "export=größer", "retry=3", "connections=4", "tls=require");
        Assert.That(tcp.EndPoint, Is.EqualTo(new DnsEndPoint("example.com", 99)));
        Assert.That((tcp.Options.ExportName, tcp.Retry, tcp.Connections, tcp.Options.Tls), Is.EqualTo(("größer", 3, 4, NbdTlsPolicy.Require)));
        Assert.That(Make("socket=/tmp/a").EndPoint!.ToString(), Is.EqualTo("/tmp/a"));
        Assert.That(Make("vsock=2", "port=7").EndPoint, Is.EqualTo(new VsockEndPoint(2, 7)));
        Assert.That(Make("hostname=h", "tls-verify=false").Options.Tls, Is.EqualTo(NbdTlsPolicy.Allow));
        Assert.That(Make("nbds://h/e").Options.Tls, Is.EqualTo(NbdTlsPolicy.Require));
        Assert.That(Make("nbd://h/e", "shared=true").Shared);
        Assert.That(Make("socket-fd=9").Shared);
    }

    [Test]
    public async Task What_the_other_server_cannot_do_is_emulated()
    {
        await using var server = new TransmissionServer(
            new TransmissionExport { Structured = false, Flags = TxFlag.HasFlags | TxFlag.SendFlush });
        NbdBackend chain = NbdBackend.Compose(new NbdPlugin { Client = server.Client });
        await chain.StartAsync();
        NextContext disk = await chain.OpenAsync();
        Assert.That((disk.Info.CanZero, disk.Info.CanFua, disk.Info.CanTrim, disk.Info.CanExtents), Is.EqualTo((Support.Emulate, Support.Emulate, false, false)));
        Task zeroing = disk.ZeroAsync(512, 1024, RequestFlags.Fua, CancellationToken.None).AsTask();

        WireRequest write = await server.NextAsync();
        await server.SucceedAsync(write);
        WireRequest flush = await server.NextAsync();
        await server.SucceedAsync(flush);

        await zeroing.Soon();
        Assert.That((write.Type, write.Offset, write.Data), Is.EqualTo((Cmd.Write, 512UL, new byte[1024])));
        Assert.That(flush.Type, Is.EqualTo(Cmd.Flush));
        await disk.DisposeAsync();
        await chain.DisposeAsync();
    }

    [Test]
    public async Task Meta_contexts_and_holes_of_the_other_server_pass_through()
    {
        const string Bitmap = "qemu:dirty-bitmap:changes";
        using var folder = new ScratchDirectory();
        var export = new TestExport(size: 1 << 20)
        {
            Configure = info => info with { MetaContexts = [ExtentList.BaseAllocation, Bitmap], CanReadSparse = Support.Emulate },
            Extents = (call, extents) =>
            {
                extents.Add(0, 524_288, extents.MetaContext == Bitmap ? (ExtentStatus)1 : ExtentStatus.Data);
                extents.Add(524_288, 524_288, extents.MetaContext == Bitmap ? 0 : ExtentStatus.Hole | ExtentStatus.Zero);
            },
        };
        await using NbdBackend disk = NbdBackend.Compose(new TestPlugin(export));
        await using var server = new NbdServer(
            disk, new NbdServerOptions { EndPoints = [new System.Net.Sockets.UnixDomainSocketEndPoint(folder["nbd.sock"])] });
        await server.StartAsync();
        await using NbdBackend proxy = NbdBackend.Compose(new NbdPlugin { Uri = server.Uris[0].OriginalString });
        await using NextContext through = await proxy.OpenAsync();
        byte[] buffer = new byte[1 << 20];
        var read = new ExtentList(0, buffer.Length);

        ExtentList bitmap = await through.ExtentsFullAsync(0, 1 << 20, Bitmap, default);
        await through.ReadSparseAsync(buffer, 0, read, default);

        Assert.That(through.Info.MetaContexts, Is.EqualTo(new[] { ExtentList.BaseAllocation, Bitmap }));
        Assert.That(bitmap.Select(e => (e.Length, (int)e.Status)), Is.EqualTo(new[] { (524_288L, 1), (524_288L, 0) }));
        Assert.That(
            read, Is.EqualTo((Extent[])[new(0, 524_288, ExtentStatus.Data), new(524_288, 524_288, ExtentStatus.Hole | ExtentStatus.Zero)]));
        Assert.That(buffer.AsSpan(0, 524_288).SequenceEqual(export.Data.AsSpan(0, 524_288)));
    }

    [Test]
    public async Task It_tries_again_as_often_as_it_was_told()
    {
        var time = new FakeTimeProvider();
        int attempts = 0;
        NbdBackend chain = NbdBackend.Compose(new NbdPlugin
        {
            Retry = 2,
            Options = new NbdClientOptions { TimeProvider = time },
            Connect = (_, _) =>
            {
                attempts++;
                throw new NbdClientException(NbdClientError.ConnectFailed, "nobody is there");
            },
        });
        await chain.StartAsync();
        Task opening = chain.OpenAsync().AsTask();
        await time.AdvanceUntilAsync(opening);

        Assert.That(TestData.Failure(() => opening).Error, Is.EqualTo(NbdError.IoError));
        Assert.That(attempts, Is.EqualTo(3));
        await chain.DisposeAsync();
    }

    [Test]
    public async Task A_connected_socket_is_used_by_its_descriptor()
    {
        await using var server = new NbdServer(NbdBackend.Compose(new MemoryPlugin { Size = 12_345 }));
        await server.StartAsync();
        using SocketPair sockets = await SocketPair.CreateAsync(tcp: false);
        Task serving = server.ServeAsync(sockets.Server);
        // A descriptor of the plugin's own, as if it were inherited.
        int descriptor = dup((int)sockets.Client.SafeHandle.DangerousGetHandle());
        NbdBackend chain = _catalogue.Compose("nbd", [], [new("socket-fd", $"{descriptor}")]);
        await chain.StartAsync();
        await using (NextContext disk = await chain.OpenAsync())
        {
            Assert.That(disk.Info.Size, Is.EqualTo(12_345));
        }
        await chain.DisposeAsync();
        await serving.Soon();
    }

    [DllImport("libc")]
    private static extern int dup(int descriptor);

    private NbdPlugin Make(params string[] parameters)
        => (NbdPlugin)_catalogue.Plugin("nbd").Create(new NbdParameters(
            "nbd", parameters.Select(p => p.Contains("://") && !p.StartsWith("uri=", StringComparison.Ordinal) ? new KeyValuePair<string, string>("uri", p) : Pair(p))));

    private static KeyValuePair<string, string> Pair(string text)
    {
        int at = text.IndexOf('=', StringComparison.Ordinal);
        return new(text[..at], text[(at + 1)..]);
    }
}
