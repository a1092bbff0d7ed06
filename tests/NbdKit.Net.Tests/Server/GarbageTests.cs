using System.Runtime.CompilerServices;
using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>What a running server keeps of clients that have left: nothing of what their layers held.</summary>
[NonParallelizable]
public sealed class GarbageTests
{
    [Test]
    [Property("Threat", "N13")]
    public async Task What_a_client_had_open_is_garbage_when_he_has_left([Values] bool blocking, [Values] bool ordered)
    {
        var plugin = new LargePlugin(blocking, ordered ? ThreadModel.SerializeRetirement : ThreadModel.Parallel);
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await chain.StartAsync();
        using var core = new ServerCore(chain, new NbdServerOptions(), () => { });
        await ServeAsync(core);
        for (int i = 0; i < 50 && plugin.Handle.IsAlive; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            await Task.Delay(20);
        }
        Assert.That(plugin.Handle.IsAlive, Is.False);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static async Task ServeAsync(ServerCore core)
    {
        var client = new ScriptedTransport();
        client.Feed(ScriptedTransport.Handshake()).Request(Cmd.Read, 0, 512).Request(Cmd.Flush).Request(Cmd.Disc);
        Assert.That((await core.ServeAsync(client, CancellationToken.None).Soon()).Reason, Is.EqualTo(NbdDisconnectReason.ClientDone));
    }

    private sealed class LargePlugin(bool blocking, ThreadModel model) : INbdPlugin
    {
        public string Name => "large";

        public ThreadModel ThreadModel => model;

        public WeakReference Handle { get; private set; } = new(null);

        public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        {
            var handle = new LargeHandle(blocking);
            Handle = new WeakReference(handle);
            return new(handle);
        }
    }

    private sealed class LargeHandle(bool blocking) : INbdPluginHandle
    {
        private readonly byte[] _content = new byte[1 << 20];

        public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
            => new(new NbdExportInfo { Size = _content.Length, IsBlocking = blocking });

        public async ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        {
            await Task.Yield();
            _content.AsMemory((int)offset, buffer.Length).CopyTo(buffer);
        }
    }
}
