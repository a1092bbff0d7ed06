using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Server;
using NbdKit.Tests.Testing;
using NbdKit.Transports;

namespace NbdKit.Tests.Server;

/// <summary>Requests whose memory cannot be had: longer than any array may be, which a limit of the host's lets through.</summary>
public sealed class NoMemoryTests
{
    private const uint TooLong = 0x7fffffd0;
    private const long DiskSize = 1L << 40;

    [Test]
    public async Task A_request_without_memory_fails_alone(
        [Values(Cmd.Read, Cmd.Write)] ushort command, [Values] bool blocking, [Values] bool ordered)
    {
        var disk = new VastDisk(DiskSize) { Info = new NbdExportInfo { Size = DiskSize, CanWrite = true, IsBlocking = blocking } };
        await using NbdBackend chain = ordered
            ? NbdBackend.Compose(disk, new NoparallelFilter { Serialize = ThreadModel.SerializeRetirement })
            : NbdBackend.Compose(disk);
        await chain.StartAsync();
        using var core = new ServerCore(chain, new NbdServerOptions { MaxPayload = (int)TooLong }, () => { });
        var client = new ReplayedClient()
            .Send(ScriptedTransport.Handshake()).Send(WireBytes.Request(command, 1, 0, TooLong))
            .SendZeroes(command == Cmd.Write ? TooLong : 0)
            .Send(WireBytes.Request(Cmd.Read, 2, 0, 1)).Send(WireBytes.Request(Cmd.Disc, 3, 0, 0));

        NbdDisconnect end = await core.ServeAsync(client, CancellationToken.None).Soon();

        Assert.That(end.Reason, Is.EqualTo(NbdDisconnectReason.ClientDone), end.Detail);
        byte[] expected = new WireBytes()
            .U32(Magic.SimpleReply).U32(Errno.NoMem).U64(1).U32(Magic.SimpleReply).U32(Errno.Ok).U64(2).ToArray();
        Assert.That(client.Output[^33..^1], Is.EqualTo(expected));
    }

    [Test]
    [Property("Threat", "N17")]
    public async Task A_failure_for_which_there_is_no_reply_ends_the_connection_and_nothing_else()
    {
        var gate = new Gate();
        var calls = new CallRecorder();
        var plugin = new RecordingPlugin(calls);
        plugin.Script.OnCall = async (call, _) =>
        {
            if (call.Callback == "read")
            {
                await gate.PassAsync(CancellationToken.None);
                throw new InvalidOperationException("the defect");
            }
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await chain.StartAsync();
        var slabs = new ScarceSlabs();
        using var core = new ServerCore(chain, new NbdServerOptions(), () => { }) { Slabs = slabs };
        var client = new ScriptedTransport();
        client.Feed(ScriptedTransport.Handshake()).Request(Cmd.Read, 0, 512);
        Task<NbdDisconnect> served = core.ServeAsync(client, CancellationToken.None);
        await gate.ArrivedAsync();

        slabs.IsEmpty = true;
        gate.Open();

        Assert.That((await served.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.Faulted));
        calls.AssertBalanced();
    }

    [Test]
    [Property("Threat", "N17")]
    public async Task A_large_read_needs_no_block_for_its_header()
    {
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 });
        await chain.StartAsync();
        var slabs = new ScarceSlabs();
        using var core = new ServerCore(chain, new NbdServerOptions(), () => { }) { Slabs = slabs };
        var client = new ScriptedTransport();
        client.Feed(ScriptedTransport.Handshake(name: ""));
        Task<NbdDisconnect> served = core.ServeAsync(client, CancellationToken.None);
        client.TakeOutput();
        slabs.IsEmpty = true;

        client.Request(Cmd.Read, 0, 128 << 10).Request(Cmd.Disc);

        Assert.That((await served.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.ClientDone));
        Assert.That(client.TakeOutput(), Has.Length.EqualTo(16 + (128 << 10)));
    }

    /// <summary>Sends what it was told to, of which gigabytes of zeroes cost nothing, and then no more.</summary>
    private sealed class ReplayedClient : Transport
    {
        private readonly Queue<(byte[]? Bytes, long Count)> _parts = new();
        private readonly MemoryStream _output = new();
        private long _position;

        public byte[] Output => _output.ToArray();

        public ReplayedClient Send(byte[] bytes)
        {
            _parts.Enqueue((bytes, bytes.Length));
            return this;
        }

        public ReplayedClient SendZeroes(long count)
        {
            _parts.Enqueue((null, count));
            return this;
        }

        public override ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
        {
            while (_parts.TryPeek(out (byte[]? Bytes, long Count) part))
            {
                if (_position == part.Count)
                {
                    _parts.Dequeue();
                    _position = 0;
                    continue;
                }
                int count = (int)Math.Min(buffer.Length, part.Count - _position);
                part.Bytes?.AsSpan((int)_position, count).CopyTo(buffer.Span);
                _position += count;
                return new(count);
            }
            return new(0);
        }

        public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
        {
            _output.Write(bytes.Span);
            return default;
        }

        public override ValueTask CloseAsync() => default;

        public override void Abort()
        {
        }
    }
}
