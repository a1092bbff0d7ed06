using System.Net.Sockets;
using NbdKit.Plugins;

namespace NbdKit.Tests.Tool;

/// <summary>The option <c>--vsock</c>, as far as a machine can go that is no host of virtual machines.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class CommandVsockTests
{
    [Test]
    public async Task The_command_sees_the_port_and_a_URI_of_this_machine([Values("0", "2222222222")] string port)
    {
        await RequireVsocksAsync();
        (int status, string output, string error) = await ToolProcess.RunAsync(
            "memory", "1M", "--vsock", "-p", port, "-e", "a b", "--run", "echo \"$uri|$nbd|$port|$unixsocket|$exportname\"");

        Assert.That(status, Is.Zero, error);
        string[] words = output.Trim().Split('|');
        Assert.That(words[2], port == "0" ? Does.Match("^[1-9][0-9]*$").And.Not.EqualTo($"{uint.MaxValue}") : Is.EqualTo(port));
        Assert.That(words, Is.EqualTo(new[] { $"nbd+vsock://1:{words[2]}/a%20b", words[0], words[2], "", "a b" }));
    }

    [Test]
    public async Task The_URI_is_printed_and_the_port_taken()
    {
        await RequireVsocksAsync();
        await using ToolProcess first = ToolProcess.Start("memory", "1M", "--vsock", "-p", "2333333333");
        string uri = await first.LineAsync();
        Assert.That(uri, Is.EqualTo("nbd+vsock://1:2333333333/"));
        (int secondStatus, _, string secondError) = await ToolProcess.RunAsync("memory", "1M", "--vsock", "-p", "2333333333");
        Assert.That(secondStatus, Is.EqualTo(1));
        Assert.That(secondError, Does.Contain("cannot listen on vsock:4294967295:2333333333"));
    }

    private static async Task RequireVsocksAsync()
    {
        await using var server = new NbdServer(
            NbdBackend.Compose(new MemoryPlugin { Size = 512 }),
            new NbdServerOptions { EndPoints = [new VsockEndPoint(VsockEndPoint.AnyCid, uint.MaxValue)] });
        try
        {
            await server.StartAsync();
        }
        catch (SocketException e) when (e.SocketErrorCode != SocketError.Fault)
        {
            Assert.Ignore($"There are no vsocks here: {e.Message}");
        }
    }
}
