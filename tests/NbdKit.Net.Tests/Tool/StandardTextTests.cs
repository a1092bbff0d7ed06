using System.Text.RegularExpressions;
using NbdKit.Tool;

namespace NbdKit.Tests.Tool;

public sealed class StandardTextTests
{
    [Test]
    public void A_message_becomes_one_line_without_the_name_of_the_argument()
        => Assert.That(
            StandardText.OneLine(new ArgumentException("size=x: no\nsize", "size")), Is.EqualTo("size=x: no size"));

    [Test]
    public void The_variables_of_a_captive_command_are_quoted()
        => Assert.That(
            Regex.Replace(CaptiveCommand.Script("echo $uri", "nbd+unix:///it's?socket=/s", "/s", null, "it's", TlsMode.Require, "/it's"), "nbdkit_net.*\n", ""),
            Is.EqualTo("""
                uri='nbd+unix:///it'\''s?socket=/s'
                nbd='nbd+unix:///it'\''s?socket=/s'
                port=''
                unixsocket='/s'
                exportname='it'\''s'
                tls='2'
                tls_certificates='/it'\''s'
                tls_psk=''
                echo $uri
                """));
}
