using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>A TLS connection belongs to no thread: not to the one that made it, nor to one of many.</summary>
public sealed class TlsThreadTests
{
    private const int Size = 64 << 10;
    private const int Workers = 8;
    private const int RequestsPerWorker = 200;

    private static readonly NbdServerOptions Encrypted = new() { Tls = new NbdServerTls(TestCertificates.Server) };

    [Test, Property("Threat", "qemu-tls-iothread")]
    public async Task Requests_of_many_threads_go_through_one_connection()
    {
        var plugin = new TestPlugin();
        await using var server = new NbdServer(NbdBackend.Compose(plugin), Encrypted);
        await using NbdClient client = await ConnectAsync(server);
        int done = 0;
        Thread[] threads = [.. Enumerable.Range(0, Workers).Select(worker => new Thread(() => Work(worker)))];
        foreach (Thread thread in threads)
        {
            thread.Start();
        }
        foreach (Thread thread in threads)
        {
            Assert.That(thread.Join(WireClient.Deadline * 3), "a thread waits for ever");
        }
        Assert.That(done, Is.EqualTo(Workers * RequestsPerWorker));

        void Work(int worker)
        {
            var random = new Random(worker);
            byte[] buffer = new byte[4096];
            for (int i = 0; i < RequestsPerWorker; i++)
            {
                int offset = random.Next(Size - buffer.Length);
                client.ReadAsync(buffer, offset).AsTask().Wait(WireClient.Deadline);
                if (buffer.AsSpan().SequenceEqual(plugin.Data.AsSpan(offset, buffer.Length)))
                {
                    Interlocked.Increment(ref done);
                }
            }
        }
    }

    [Test, Property("Threat", "qemu-tls-iothread"), Property("Threat", "N11")]
    public async Task Server_and_client_on_one_thread_do_not_wait_for_each_other([Values] bool encrypted)
        => await SingleThread.RunAsync(async () =>
        {
            var plugin = new TestPlugin();
            await using var server = new NbdServer(NbdBackend.Compose(plugin), encrypted ? Encrypted : new NbdServerOptions());
            await server.StartAsync();
            await using NbdClient client = await ConnectAsync(server, encrypted);
            plugin.Export.Before = async _ => await Task.Yield();
            byte[][] buffers = [.. Enumerable.Range(0, 32).Select(_ => new byte[512])];
            await Task.WhenAll(buffers.Select((buffer, i) => client.ReadAsync(buffer, i * 512).AsTask()));
            Assert.That(buffers.SelectMany(buffer => buffer), Is.EqualTo(plugin.Data[..(32 * 512)]));
            await client.WriteAsync(new byte[100_000 / 2], 0);
            await client.FlushAsync();
        }).WaitAsync(WireClient.Deadline * 3);

    private static Task<NbdClient> ConnectAsync(NbdServer server, bool encrypted = true)
    {
        var pipes = new PipePair();
        _ = server.ServeAsync(pipes.Server);
        return NbdClient.ConnectAsync(pipes.Client, new NbdClientOptions
        {
            Tls = encrypted ? NbdTlsPolicy.Require : NbdTlsPolicy.Off,
            TlsAuthentication = encrypted ? TestCertificates.Client() : null,
        });
    }
}
