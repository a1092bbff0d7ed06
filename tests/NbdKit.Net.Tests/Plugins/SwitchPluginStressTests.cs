using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public class SwitchPluginStressTests
{
    [Test]
    public async Task No_request_fails_or_is_lost_while_chains_are_replaced([Values(1, 2, 3)] int seed)
    {
        const int Size = 64 * 1024;
        // Two views of the same bytes, of which the second goes through a filter and on other threads.
        var store = new ModelPlugin(new byte[Size]) { RecordsCalls = false };
        var slow = new DelegateView(store);
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(slow.Plugin()) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await chain.StartAsync();
        using var stop = new CancellationTokenSource();
        int done = 0;
        Task[] clients = [.. Enumerable.Range(0, 4).Select(i => Task.Run(async () =>
        {
            // Each client has a part of the disk for itself.
            var random = new Random((seed * 10) + i);
            byte[] model = new byte[Size / 4];
            while (!stop.IsCancellationRequested)
            {
                await using NextContext disk = await chain.OpenAsync();
                for (int n = 0; n < 50; n++)
                {
                    int offset = random.Next(model.Length - 100);
                    byte[] data = new byte[random.Next(1, 100)];
                    if (random.Next(2) == 0)
                    {
                        random.NextBytes(data);
                        data.CopyTo(model, offset);
                        await disk.WriteAsync(data, (i * model.Length) + offset, RequestFlags.None, default);
                    }
                    else
                    {
                        await disk.ReadAsync(data, (i * model.Length) + offset, default);
                        Assert.That(data.AsSpan().SequenceEqual(model.AsSpan(offset, data.Length)), $"seed {seed}");
                    }
                    Interlocked.Increment(ref done);
                }
            }
        }))];
        for (int i = 0; i < 60; i++)
        {
            int before = Volatile.Read(ref done);
            await plugin.ReplaceAsync(NbdBackend.Compose(slow.Plugin(), i % 2 == 0 ? [new NofilterFilter()] : [])).Soon();
            while (Volatile.Read(ref done) < before + 5 && !clients.Any(client => client.IsFaulted))
            {
                await Task.Yield();
            }
        }
        await stop.CancelAsync();
        await Task.WhenAll(clients).Soon();
        Assert.That(slow.Open, Is.Zero, "contexts that nobody closed");
        Assert.That(slow.AfterClose, Is.Zero, "requests on closed contexts");
    }

    /// <summary>Views of one disk, each with contexts that know whether they are closed.</summary>
    private sealed class DelegateView(ModelPlugin store)
    {
        private int _open;
        private int _afterClose;

        public int Open => Volatile.Read(ref _open);

        public int AfterClose => Volatile.Read(ref _afterClose);

        public INbdPlugin Plugin() => new View(this, store);

        private sealed class View(DelegateView owner, ModelPlugin store) : INbdPlugin
        {
            public string Name => "view";

            public ThreadModel ThreadModel => ThreadModel.Parallel;

            public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
            {
                Interlocked.Increment(ref owner._open);
                return new(new Handle(owner, store));
            }
        }

        private sealed class Handle(DelegateView owner, ModelPlugin store) : INbdPluginHandle
        {
            private volatile bool _closed;
            private int _turn;

            public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
                => store.GetInfoAsync(cancellationToken);

            public async ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
            {
                await EnterAsync();
                await store.ReadAsync(buffer, offset, cancellationToken);
            }

            public async ValueTask WriteAsync(
                ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
            {
                await EnterAsync();
                await store.WriteAsync(data, offset, flags, cancellationToken);
            }

            public ValueTask FlushAsync(CancellationToken cancellationToken) => store.FlushAsync(cancellationToken);

            public ValueTask CloseAsync()
            {
                _closed = true;
                Interlocked.Decrement(ref owner._open);
                return default;
            }

            private async ValueTask EnterAsync()
            {
                if (_turn++ % 3 == 0)
                {
                    await Task.Yield();
                }
                if (_closed)
                {
                    Interlocked.Increment(ref owner._afterClose);
                }
            }
        }
    }
}
