using System.Net;
using System.Net.Sockets;
using NbdKit.Tool;

namespace NbdKit.Tests.Tool;

public sealed class ListeningTests
{
    private static async Task<IReadOnlyList<EndPoint>> EndPoints(params string[] arguments)
        => await Listening.EndPointsAsync(CommandLine.Parse([.. arguments, "memory"]), null, CancellationToken.None);

    [Test]
    public async Task Without_options_it_is_the_NBD_port_on_all_addresses()
    {
        IReadOnlyList<EndPoint> endPoints = await EndPoints();
        Assert.That(endPoints[0], Is.EqualTo(new IPEndPoint(IPAddress.Any, 10809)));
        Assert.That(
            endPoints.Skip(1), Is.EqualTo(Socket.OSSupportsIPv6 ? [new IPEndPoint(IPAddress.IPv6Any, 10809)] : Array.Empty<EndPoint>()));
    }

    [Test]
    public async Task One_family_can_be_asked_for()
    {
        Assert.That(await EndPoints("-4"), Is.EqualTo(new[] { new IPEndPoint(IPAddress.Any, 10809) }));
        Assert.That(
            await EndPoints("-6", "-i", "::1", "-p", "1"),
            Is.EqualTo(new[] { new IPEndPoint(IPAddress.IPv6Loopback, 1) }));
    }

    [Test]
    public void An_address_of_the_other_family_leaves_nothing()
        => Assert.That(
            async () => await EndPoints("-6", "-i", "127.0.0.1"),
            Throws.TypeOf<CommandException>().With.Message.Contains("no IPv6 address"));

    [Test]
    public async Task The_name_of_a_host_is_looked_up()
        => Assert.That(
            await EndPoints("-4", "-i", "localhost", "-p", "7"),
            Is.EqualTo(new[] { new IPEndPoint(IPAddress.Loopback, 7) }));

    [Test]
    public async Task A_free_port_is_the_same_on_all_addresses()
    {
        int[] ports = [.. (await EndPoints("-p", "0")).Select(e => ((IPEndPoint)e).Port).Distinct()];
        Assert.That(ports, Has.Length.EqualTo(1));
    }

    [Test]
    public async Task A_free_port_of_one_address_is_left_to_the_server()
        => Assert.That(
            await EndPoints("-p", "0", "-i", "127.0.0.1"),
            Is.EqualTo(new[] { new IPEndPoint(IPAddress.Loopback, 0) }));

    [Test]
    public async Task A_relative_path_of_a_Unix_socket_is_made_absolute()
        => Assert.That((await EndPoints("-U", "disk.sock"))[0].ToString(), Is.EqualTo(Path.GetFullPath("disk.sock")));

    [Test]
    public void A_path_that_is_too_long_is_refused()
        => Assert.That(
            async () => await EndPoints("-U", "/" + new string('x', 200)),
            Throws.TypeOf<CommandException>().With.Message.Contains("too long"));

    [TestCase("", 10809u), TestCase("-p 70000", 70_000u), TestCase("-p 4294967294", 4_294_967_294u), TestCase("-p 0", uint.MaxValue)]
    public async Task A_vsock_has_the_NBD_port_or_one_of_32_bits(string port, uint expected)
        => Assert.That(
            await EndPoints(["--vsock", .. port.Split(' ', StringSplitOptions.RemoveEmptyEntries)]),
            Is.EqualTo(new[] { new VsockEndPoint(VsockEndPoint.AnyCid, expected) }));

    [TestCase("4294967295"), TestCase("4294967296"), TestCase("-1"), TestCase("no-such-service")]
    public void A_vsock_has_no_other_port(string port)
        => Assert.That(
            async () => await EndPoints("--vsock", "-p", port), Throws.TypeOf<CommandException>().With.Message.Contains(port));

    [Test]
    public async Task A_single_connection_needs_no_endpoint() => Assert.That(await EndPoints("-s"), Is.Empty);

    [TestCase("0", 0), TestCase("65535", 65535)]
    public void A_port_is_a_number(string port, int expected)
        => Assert.That(Listening.PortNumber(port), Is.EqualTo(expected));

    [Test]
    public void A_port_is_the_name_of_a_service()
    {
        Assume.That(File.Exists("/etc/services") && File.ReadAllText("/etc/services").Contains("10809/tcp"));
        Assert.That(Listening.PortNumber("nbd"), Is.EqualTo(10809));
    }

    [TestCase("65536"), TestCase("-1"), TestCase("no-such-service"), TestCase("80x")]
    public void Anything_else_is_no_port(string port)
        => Assert.That(() => Listening.PortNumber(port), Throws.TypeOf<CommandException>().With.Message.Contains(port));
}
