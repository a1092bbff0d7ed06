namespace NbdKit.Plugins;

/// <summary>How clients will access a served file (nbdkit-file-plugin(1), <c>fadvise</c>).</summary>
public enum FileAdvice
{
    /// <summary>Nothing is known.</summary>
    Normal,

    /// <summary>Here and there: reading ahead is no use.</summary>
    Random,

    /// <summary>From start to end: read far ahead.</summary>
    Sequential,
}
