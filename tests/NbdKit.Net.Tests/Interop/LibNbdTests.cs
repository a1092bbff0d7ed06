using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>libnbd itself, also with its checks switched off: what is not allowed fails, and the connection lives on.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class LibNbdTests
{
    [Test]
    public async Task Illegal_requests_fail_and_the_connection_lives([Values] SocketKind socket, [Values] bool structured)
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 1_000_001 }), socket);

        await LibNbd.RunAsync(server.Uri, $"""
            h = connect(request_structured_replies={structured})
            size = h.get_size()
            assert size == 1000001
            h.pwrite(b'good', 4096)

            def refused(number, call, *arguments, **keywords):
                fails(number, call, *arguments, **keywords)
                assert h.pread(4, 4096) == b'good'

            # Beyond the end.
            refused(errno.EINVAL, h.pread, 1, size)
            refused(errno.EINVAL, h.pread, 2, size - 1)
            refused(errno.EINVAL, h.pread, 512, 2**63)
            refused(errno.EINVAL, h.pread, 512, 2**64 - 256)
            refused(errno.ENOSPC, h.pwrite, b'xx', size - 1)
            refused(errno.ENOSPC, h.pwrite, b'x' * 65536, 2**64 - 1)
            refused(errno.ENOSPC, h.zero, 2, size - 1)
            refused(errno.ENOSPC, h.zero, 2**32 - 1, 2**64 - 1)
            refused(errno.EINVAL, h.trim, 2, size - 1)
            refused(errno.EINVAL, h.trim, 2**32 - 1, 0)
            refused(errno.EINVAL, h.cache, 2, size - 1)

            # More than the server takes at once.
            refused(errno.EINVAL, h.pread, 2**25 + 1, 0)

            # Flags that mean nothing for the command, or nothing at all.
            refused(errno.EINVAL, h.pread, 512, 0, nbd.CMD_FLAG_NO_HOLE)
            refused(errno.EINVAL, h.pwrite, b'x', 0, nbd.CMD_FLAG_REQ_ONE)
            refused(errno.EINVAL, h.trim, 512, 0, nbd.CMD_FLAG_FAST_ZERO)
            refused(errno.EINVAL, h.flush, nbd.CMD_FLAG_DF)
            refused(errno.EINVAL, h.zero, 512, 0, 1 << 15)
            h.pread(512, 0, nbd.CMD_FLAG_FUA)

            # What was not negotiated.
            if not h.get_structured_replies_negotiated():
                refused(errno.EINVAL, h.pread, 512, 0, nbd.CMD_FLAG_DF)

            # The last byte is still there.
            h.pwrite(b'z', size - 1)
            assert h.pread(1, size - 1) == b'z'
            h.shutdown()
            """);
    }

    [Test]
    public async Task A_read_only_export_refuses_every_change()
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 }), options: new NbdServerOptions { ReadOnly = true });

        await LibNbd.RunAsync(server.Uri, """
            h = connect()
            assert h.is_read_only()
            for call in (h.pwrite, b'x', 0), (h.trim, 512, 0), (h.zero, 512, 0), (h.pwrite, b'x', 2**63):
                fails(errno.EPERM, *call)
                assert h.pread(512, 0) == bytes(512)
            h.shutdown()
            """);
    }

    [Test, Property("Threat", "nbdkit-80033669")]
    public async Task Block_status_answers_for_the_range_asked()
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = 1 << 20 });

        await LibNbd.RunAsync(server.Uri, """
            h = connect()
            h.pwrite(b'x' * 32768, 65536)
            assert extents(h, 1048576, 0) == [(65536, 3), (32768, 0), (950272, 3)], extents(h, 1048576, 0)
            assert extents(h, 1048576, 0, nbd.CMD_FLAG_REQ_ONE) == [(65536, 3)]
            assert extents(h, 10, 65530, nbd.CMD_FLAG_REQ_ONE) == [(6, 3)]
            assert extents(h, 1, 98303)[0][1] == 0
            fails(errno.EINVAL, extents, h, 0, 0)
            fails(errno.EINVAL, extents, h, 2, 1048575)
            assert h.pread(2, 65535) == b'\0x'
            h.shutdown()

            # Without a context there is nothing to ask for.
            h = connect(contexts=())
            fails(errno.EINVAL, extents, h, 512, 0)
            assert h.pread(2, 65535) == b'\0x'
            h.shutdown()
            """);
    }

    [Test]
    public async Task Replies_come_out_of_order_and_every_request_gets_its_own(
        [Values] SocketKind socket, [Values] bool structured)
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 64 << 20 }), socket);

        await LibNbd.RunAsync(server.Uri, $"""
            import random
            h = connect(request_structured_replies={structured})
            r = random.Random(99)
            writes = []
            for i in range(1000):
                length = r.choice((1, 7, 512, 4096, 65536))
                data = bytes((i + k) & 255 for k in range(16)) * (length // 16 + 1)
                writes.append((i * 65536, data[:length]))
            def submit(call):
                cookies = []
                for offset, data in r.sample(writes, len(writes)):
                    while h.aio_in_flight() >= 200:
                        assert h.poll(20000) == 1, 'no reply'
                    cookies.append((call(offset, data), offset, data))
                return cookies
            for cookie, _, _ in submit(lambda offset, data: h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), offset)):
                wait(h, cookie)
            buffers = {"{}"}
            def read(offset, data):
                buffers[offset] = nbd.Buffer(len(data))
                return h.aio_pread(buffers[offset], offset)
            for cookie, offset, data in submit(read):
                wait(h, cookie)
                assert buffers[offset].to_bytearray() == data, 'seed 99, offset %d' % offset
            h.shutdown()
            """);
    }

    [Test]
    public async Task Many_clients_share_the_disk()
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = 1 << 20 });

        await LibNbd.RunAsync(server.Uri, """
            clients = [connect() for _ in range(90)]
            assert all(h.can_multi_conn() for h in clients)
            for i, h in enumerate(clients):
                h.pwrite(bytes([i + 1]) * 512, i * 512)
            clients[0].flush()
            for h in clients:
                assert h.pread(512 * 90, 0) == b''.join(bytes([i + 1]) * 512 for i in range(90))
            for h in clients:
                h.shutdown()
            """);
    }

    [Test]
    public async Task A_client_that_is_killed_leaves_the_others_alone()
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 64 << 20 }), lenient: true);

        await LibNbd.RunAsync(server.Uri, """
            import os, signal
            survivor = connect()
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    h = connect()
                    buffers = [nbd.Buffer(4 << 20) for _ in range(16)]
                    for b in buffers:
                        h.aio_pread(b, 0)
                    h.poll(0)
                    os.kill(os.getpid(), signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                assert os.WTERMSIG(status) == signal.SIGKILL
                assert survivor.pread(512, 0) == bytes(512)
                h = connect()
                assert h.pread(512, 0) == bytes(512)
                h.shutdown()
            survivor.shutdown()
            """);
    }

    [Test]
    public async Task Export_after_export_is_opened_on_one_connection()
    {
        await using InteropServer server = await InteropServer.StartAsync(new ExportsPlugin());

        await LibNbd.RunAsync(server.Uri, """
            h = nbd.NBD()
            h.set_opt_mode(True)
            h.set_full_info(True)
            h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
            h.connect_uri(uri)
            names = []
            h.opt_list(lambda name, description: names.append(name))
            assert names == ['a disk/with a path', 'disk', 'größer'], names
            fails(errno.ENOENT, h.opt_go)
            h.set_export_name('nowhere')
            fails(errno.ENOENT, h.opt_info)
            for name in names[:2]:
                h.set_export_name(name)
                h.opt_info()
                assert h.get_export_description() == 'the disk ' + name
            h.set_export_name(names[2])
            h.opt_go()
            assert h.get_size() == 1000001
            assert h.pread(1, 1000000) == bytes([6])
            h.shutdown()
            """);
    }
}
