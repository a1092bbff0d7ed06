using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>A plugin that throws, hangs and lies costs the request in question; all other requests and clients go on.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class MisbehavingPluginTests
{
    /// <summary>Names for the scripts: where each region is, and a client that must never notice anything.</summary>
    private static readonly string Regions = string.Join(
        '\n', Enum.GetValues<FaultyRegion>().Select(region => $"{region} = {(int)region * FaultyPlugin.RegionSize}")) + """

        SIZE = Missing + 1048576
        bystander = connect('')

        def fine(h):
            for client in h, bystander:
                assert client.pread(512, Good) == bytes(512)
                client.pwrite(bytes(512), Good)
                client.zero(512, Good)
                client.trim(512, Good)
                client.cache(512, Good)
                client.flush()
                assert extents(client, 512, Good)[0][1] == 0


        """;

    private static Task<InteropServer> StartAsync(
        FaultyPlugin plugin, SocketKind socket = SocketKind.Unix, NbdServerOptions? options = null)
        => InteropServer.StartAsync(NbdBackend.Compose(plugin), socket, options, lenient: true);

    [TestCase(FaultyRegion.NoSpace, "ENOSPC")]
    [TestCase(FaultyRegion.ThrowsAtOnce, "EIO")]
    [TestCase(FaultyRegion.ThrowsLater, "EIO")]
    [TestCase(FaultyRegion.CancelsItself, "EIO")]
    [TestCase(FaultyRegion.NoMemory, "ENOMEM")]
    [TestCase(FaultyRegion.UnknownError, "EIO")]
    [TestCase(FaultyRegion.Missing, "EIO")]
    public async Task Whatever_it_throws_fails_one_request(FaultyRegion region, string error)
    {
        await using InteropServer server = await StartAsync(new FaultyPlugin());

        await LibNbd.RunAsync(server.Uri, Regions + $"""
            h = connect('')
            for call in (h.pread, 512, {region}), (h.pwrite, bytes(512), {region}), (h.zero, 512, {region}), \
                    (h.trim, 512, {region}), (h.cache, 512, {region}), (extents, h, 512, {region}), \
                    (h.pwrite, bytes(512), {region}, nbd.CMD_FLAG_FUA), (h.pread, 512, {region}, nbd.CMD_FLAG_DF):
                fails(errno.{error}, *call)
                fine(h)
            h.shutdown()
            """);
    }

    [Test]
    public async Task What_it_does_not_support_is_never_a_word_that_clients_do_not_expect()
    {
        await using InteropServer server = await StartAsync(new FaultyPlugin());

        await LibNbd.RunAsync(server.Uri, Regions + """
            h = connect('')
            fails(errno.EINVAL, h.pread, 512, NotSupported)
            fails(errno.EINVAL, h.trim, 512, NotSupported)
            # A zero that cannot be done is tried as a write, unless it has to be fast.
            fails(errno.EINVAL, h.zero, 512, NotSupported)
            if h.can_fast_zero():
                fails(errno.ENOTSUP, h.zero, 512, NotSupported, nbd.CMD_FLAG_FAST_ZERO)
            fine(h)
            h.shutdown()
            """);
    }

    [Test]
    public async Task Failing_requests_among_many_fail_alone([Values] SocketKind socket)
    {
        await using InteropServer server = await StartAsync(new FaultyPlugin(), socket);

        await LibNbd.RunAsync(server.Uri, Regions + """
            h = connect('')
            expected = {Good: 0, Late: 0, NoSpace: errno.ENOSPC, ThrowsAtOnce: errno.EIO, ThrowsLater: errno.EIO,
                        Missing: errno.EIO}
            results = {}
            def submit(i, region):
                def done(error):
                    results[i] = (region, error.value)
                    return 1
                if i % 2:
                    h.aio_pread(nbd.Buffer(512), region + i % 3 * 512, completion=done)
                else:
                    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(512)), region + i % 3 * 512, completion=done)
            for i in range(3000):
                while h.aio_in_flight() >= 60:
                    assert h.poll(20000) == 1, 'no reply'
                submit(i, list(expected)[i % len(expected)])
            while h.aio_in_flight():
                assert h.poll(20000) == 1, 'no reply'
            assert len(results) == 3000
            for region, error in results.values():
                assert expected[region] == error, (region, error)
            fine(h)
            h.shutdown()
            """);
    }

    [Test]
    public async Task Requests_that_hang_hold_up_nobody([Values] SocketKind socket)
    {
        await using InteropServer server = await StartAsync(new FaultyPlugin(), socket);

        // The limit is 64 requests of one connection at a time.
        await LibNbd.RunAsync(server.Uri, Regions + """
            h = connect('')
            hanging = [h.aio_pread(nbd.Buffer(4096), Hangs) for _ in range(31)]
            hanging += [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(4096)), HangsForGood) for _ in range(32)]
            for _ in range(100):
                fine(h)
            assert not any(h.aio_command_completed(cookie) for cookie in hanging)
            bystander.pread(1, Releases)
            for cookie in hanging:
                wait(h, cookie)
            fine(h)
            h.shutdown()
            """);
    }

    [Test]
    public async Task A_connection_full_of_requests_that_hang_holds_up_no_other()
    {
        await using InteropServer server = await StartAsync(new FaultyPlugin());

        await LibNbd.RunAsync(server.Uri, Regions + """
            h = connect('')
            hanging = [h.aio_pread(nbd.Buffer(4096), Hangs) for _ in range(200)]
            h.poll(0)
            for _ in range(100):
                fine(bystander)
            bystander.pread(1, Releases)
            for cookie in hanging:
                wait(h, cookie)
            fine(h)
            h.shutdown()
            """);
    }

    [Test]
    public async Task A_client_that_leaves_takes_its_hanging_requests_along()
    {
        var plugin = new FaultyPlugin();
        await using InteropServer server = await StartAsync(plugin);

        await LibNbd.RunAsync(server.Uri, Regions + """
            import os
            h = connect('')
            for _ in range(10):
                h.aio_pread(nbd.Buffer(4096), Hangs)
            # Answered after the reads were received.
            h.pread(1, Good)
            os._exit(0)
            """);

        await plugin.AllClosed.WaitAsync(Peer.Deadline);
        Assert.That(() => server.Server.Connections, Is.Empty.After(5000, 10));
    }

    [TestCase("open throws")]
    [TestCase("info throws")]
    public async Task An_export_that_cannot_be_opened_is_not_there_and_the_others_are(string export)
    {
        await using InteropServer server = await StartAsync(new FaultyPlugin());

        await LibNbd.RunAsync(server.Uri, Regions + $"""
            h = nbd.NBD()
            h.set_opt_mode(True)
            h.connect_uri(uri)
            h.set_export_name('{export}')
            for call in h.opt_info, h.opt_go, h.opt_go:
                try:
                    call()
                    raise AssertionError('opened')
                except nbd.Error:
                    assert h.aio_is_negotiating(), 'the connection is lost'
            h.set_export_name('')
            h.opt_go()
            assert h.pread(512, Good) == bytes(512)
            fine(bystander)
            h.shutdown()
            """);
    }

    [Test]
    public async Task An_export_whose_opening_hangs_is_given_up()
    {
        await using InteropServer server = await StartAsync(
            new FaultyPlugin(), options: new NbdServerOptions { OpenTimeout = TimeSpan.FromSeconds(2) });

        await LibNbd.RunAsync(server.Uri, Regions + """
            try:
                connect('open hangs')
                raise AssertionError('opened')
            except nbd.Error:
                pass
            fine(bystander)
            fine(connect(''))
            """);
    }

    [Test]
    public async Task A_flush_that_throws_fails_alone()
    {
        await using InteropServer server = await StartAsync(new FaultyPlugin());

        await LibNbd.RunAsync(server.Uri, Regions + """
            h = connect('flush throws')
            fails(errno.EIO, h.flush)
            # FUA is a flush after the write here.
            fails(errno.EIO, h.pwrite, b'x', 0, nbd.CMD_FLAG_FUA)
            h.pwrite(bytes(1), 0)
            assert h.pread(1, 0) == bytes(1)
            fine(bystander)
            h.shutdown()
            """);
    }

    [Test]
    public async Task A_close_that_throws_is_nothing_to_clients()
    {
        await using InteropServer server = await StartAsync(new FaultyPlugin());

        await LibNbd.RunAsync(server.Uri, Regions + """
            for _ in range(3):
                h = connect('close throws')
                assert h.pread(1, 0) == bytes(1)
                h.shutdown()
            fine(bystander)
            """);
    }

    [TestCase("extents: none", "EINVAL")]
    [TestCase("extents: elsewhere", "EINVAL")]
    [TestCase("extents: too late", "EIO")]
    [TestCase("extents: a gap", "EIO")]
    public async Task Extents_that_make_no_sense_fail_one_request(string export, string error)
    {
        await using InteropServer server = await StartAsync(new FaultyPlugin());

        await LibNbd.RunAsync(server.Uri, Regions + $"""
            h = connect('{export}')
            fails(errno.{error}, extents, h, 4096, 65536)
            assert h.pread(512, 65536) == bytes(512)
            fine(bystander)
            h.shutdown()
            """);
    }

    [TestCase("extents: beyond", 3)]
    [TestCase("extents: junk", 3)]
    public async Task Extents_never_go_beyond_the_end_nor_mean_more_than_is_known(string export, int flags)
    {
        await using InteropServer server = await StartAsync(new FaultyPlugin());

        await LibNbd.RunAsync(server.Uri, Regions + $"""
            h = connect('{export}')
            found = extents(h, 4096, 65536)
            assert 4096 <= sum(length for length, _ in found) <= SIZE - 65536, found
            assert all(flags == {flags} for _, flags in found), found
            fine(bystander)
            h.shutdown()
            """);
    }

    [Test]
    public async Task Programs_report_the_failure_of_one_request_and_go_on()
    {
        await using InteropServer server = await StartAsync(new FaultyPlugin());
        string At(FaultyRegion region) => $"{(int)region}M";

        PeerResult result = await Peer.RunAsync(
            "qemu-io", "-f", "raw",
            "-c", "write -P 1 0 4096",
            "-c", $"read {At(FaultyRegion.ThrowsAtOnce)} 4096",
            "-c", "read -P 1 0 4096",
            "-c", $"write {At(FaultyRegion.NoSpace)} 4096",
            "-c", "read -P 1 0 4096",
            "-c", $"discard {At(FaultyRegion.ThrowsLater)} 4096",
            "-c", "read -P 1 0 4096",
            server.Uri);

        string[] lines = result.ToString().Split('\n');
        Assert.That(
            lines.Where(line => line.StartsWith("read 4096/4096", StringComparison.Ordinal)), Has.Exactly(3).Items, result.ToString());
        Assert.That(result.ToString(), Does.Contain("read failed: Input/output error"));
        Assert.That(result.ToString(), Does.Contain("write failed: No space left on device"));
        Assert.That(result.ToString(), Does.Contain("discard failed: Input/output error"));
        Assert.That(result.ToString(), Does.Not.Contain("verification failed"));
    }

    [Test]
    public async Task A_copy_of_a_disk_that_is_shorter_than_it_says_fails_in_time()
    {
        using var folder = new ScratchDirectory();
        await using InteropServer server = await StartAsync(new FaultyPlugin());

        PeerResult copy = await Peer.RunAsync("nbdcopy", server.UriOf("claims"), folder["copy"]);

        Assert.That(copy.Status, Is.Not.Zero, copy.ToString());
        Assert.That(await Peer.OutputAsync("nbdinfo", "--size", server.Uri), Does.Match("^[0-9]+\n$"));
    }
}
