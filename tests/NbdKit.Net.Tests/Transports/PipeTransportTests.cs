using System.IO.Pipelines;
using NbdKit.Transports;

namespace NbdKit.Tests.Transports;

public sealed class PipeTransportTests
{
    [Test]
    public async Task An_abort_may_come_at_any_time_also_where_pipes_are_over_streams([Values] bool closed)
    {
        var transport = new PipeTransport(new OverStreams());
        await transport.SendAsync(new byte[10], default);
        transport.Abort();
        if (closed)
        {
            await transport.CloseAsync();
        }
        Assert.That(transport.Abort, Throws.Nothing);
    }

    private sealed class OverStreams : IDuplexPipe
    {
        public PipeReader Input { get; } = PipeReader.Create(new MemoryStream());

        public PipeWriter Output { get; } = PipeWriter.Create(new MemoryStream());
    }
}
