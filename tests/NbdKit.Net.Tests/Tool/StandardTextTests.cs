using NbdKit.Tool;

namespace NbdKit.Tests.Tool;

public sealed class StandardTextTests
{
    [Test]
    public void A_message_becomes_one_line_without_the_name_of_the_argument()
        => Assert.That(
            StandardText.OneLine(new ArgumentException("size=x: no\nsize", "size")), Is.EqualTo("size=x: no size"));

    [Test]
    public void A_wildcard_address_becomes_one_to_connect_to()
    {
        using (Assert.EnterMultipleScope())
        {
            Assert.That(ServerUri.Connectable(new Uri("nbd://0.0.0.0:10809/a%20b")), Is.EqualTo("nbd://localhost:10809/a%20b"));
            Assert.That(ServerUri.Connectable(new Uri("nbd://[::]:5/")), Is.EqualTo("nbd://localhost:5/"));
            Assert.That(ServerUri.Connectable(new Uri("nbd://[::1]:5/")), Is.EqualTo("nbd://[::1]:5/"));
            Assert.That(
                ServerUri.Connectable(new Uri("nbd+unix:///a%20b?socket=%2Ftmp%2Fs")), Is.EqualTo("nbd+unix:///a%20b?socket=%2Ftmp%2Fs"));
        }
    }

    [Test]
    public void The_variables_of_a_captive_command_are_quoted()
        => Assert.That(
            CaptiveCommand.Script("echo $uri", "nbd+unix:///it's?socket=/s", "/s", null, "it's"),
            Is.EqualTo("""
                uri='nbd+unix:///it'\''s?socket=/s'
                nbd='nbd+unix:///it'\''s?socket=/s'
                port=''
                unixsocket='/s'
                exportname='it'\''s'
                tls='0'
                tls_certificates=''
                tls_psk=''
                echo $uri
                """));
}
